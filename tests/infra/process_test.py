"""A server's process ends with the one that started it, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.process import Process

ROOT = Path(__file__).parents[2]

# A server that ignores all that can be ignored, started by a thread that ends before it.
_PARENT = """
import pathlib, sys, threading
from infra.process import Process
deaf = ["sh", "-c", "trap '' HUP INT TERM; echo deaf; while :; do sleep 1; done"]
def start():
    print(Process(deaf, pathlib.Path(sys.argv[1])).pid, flush=True)
thread = threading.Thread(target=start); thread.start(); thread.join()
sys.stdin.read()
"""


def _runs(pid: int) -> bool:
    """The process exists and is not just waiting to be collected (Linux)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _wait_for(log: Path, text: str) -> None:
    while not log.exists() or text not in log.read_text():
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
def test_a_server_dies_with_its_killed_parent(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        _wait_for(log, "deaf")
        assert _runs(server), "it must outlive the thread that asked for it"
        parent.kill()
    deadline = time.monotonic() + 30
    while _runs(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(server)


def test_pause_resume_and_stop(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    process = Process(["sh", "-c", "echo up; exec sleep 600"], log)
    _wait_for(log, "up")
    process.pause()
    assert process.alive()
    process.stop()
    assert not process.alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)


def test_kill_ends_a_paused_process(tmp_path: Path) -> None:
    process = Process(["sleep", "600"], tmp_path / "log.txt")
    process.pause()
    process.kill()
    assert not process.alive()


def test_the_log_is_kept_from_one_run_to_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    for word in ("first", "second"):
        process = Process(["echo", word], log)
        while process.alive():
            time.sleep(0.01)
    assert process.log_tail() == "first\nsecond\n"


def test_a_program_that_is_missing_ends_at_once_and_is_named(tmp_path: Path) -> None:
    process = Process(["no-such-server"], tmp_path / "log.txt")
    while process.alive():
        time.sleep(0.01)
    assert process.log_tail() == "cannot run no-such-server: No such file or directory\n"
