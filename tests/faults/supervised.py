"""Our roles as processes that are started again whenever they end, as an orchestrator does it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PAUSE_S = 0.5
"""Between an end and the next start."""

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "infra" / "die_with_parent.py"


class Supervised:
    """`python -m aquifer …` until `stop`; `kill` is a SIGKILL, after which it starts again."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        bug: str | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`bug`: one that is planted in it (`tests.faults.planted`); `within`: words that start a
        command in another network."""
        self._arguments = arguments
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())]
        module = ["aquifer"] if bug is None else ["tests.faults.planted", bug]
        self._command = [*guard, *within, sys.executable, "-m", *module, *arguments]
        self._environment = {**os.environ, **environment}
        self._log = log
        self._running: asyncio.subprocess.Process | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.starts = 0

    def upgraded(self) -> Supervised:
        """The same role in this version."""
        return Supervised(self._arguments, self._environment, self._log)

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        with self._log.open("ab") as output:
            while True:
                self.starts += 1
                running = self._running = await asyncio.create_subprocess_exec(
                    *self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
                )
                self._up.set()
                await running.wait()
                self._up.clear()
                await asyncio.sleep(PAUSE_S)

    async def kill(self) -> None:
        """Wait until it runs, if it does not, and kill it."""
        await self._up.wait()
        assert self._running is not None, "it runs"
        self._running.kill()

    async def started(self, times: int) -> None:
        """Wait until it was started so often."""
        while self.starts < times:  # noqa: ASYNC110  only tests wait so
            await asyncio.sleep(0.05)

    async def pause(self) -> None:
        """SIGSTOP"""
        await self._up.wait()
        assert self._running is not None, "it runs"
        self._running.send_signal(signal.SIGSTOP)

    async def resume(self) -> None:
        """SIGCONT"""
        assert self._running is not None, "it was stopped"
        self._running.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it and its supervision."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._running is not None and self._running.returncode is None:
            self._running.send_signal(signal.SIGCONT)
            self._running.terminate()
            await self._running.wait()

    def said(self, text: str) -> int:
        """How often its output says so."""
        return self._log.read_bytes().count(text.encode())

    def peak_mib(self) -> int:
        """Most memory that the running process has had."""
        assert self._running is not None, "it runs"
        status = Path(f"/proc/{self._running.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def tail(self) -> str:
        return self._log.read_bytes()[-3000:].decode(errors="replace")
