"""A server as a child process that never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_GUARD = str(Path(__file__).with_name("die_with_parent.py"))
_STOP_WITHIN_S = 30
_TAIL_BYTES = 6000

# The kernel counts the death of the starting thread as the parent's. This thread lives as long
# as the interpreter, whichever thread asks for a server.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="start-server")


class Process:
    """Running from its making on; output goes to the log file, which is appended to."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        self._popen = _starter.submit(_spawn, command, log).result()

    @property
    def pid(self) -> int:
        """The server's process id, e.g. to read its memory use."""
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def pause(self) -> None:
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def log_tail(self) -> str:
        return self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    guarded = [sys.executable, "-I", "-S", _GUARD, str(os.getpid()), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone: we stop the servers in order
        )
