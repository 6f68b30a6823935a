"""The live embedded cell, in a process of its own: served, stopped, and started again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from aquifer.live import new_session
from domain.cell import Cell
from domain.ports import Message
from streams.sqlite import Database, SqliteCommandSink

ROOT = Path(__file__).parents[2]
START_S = 60
ANSWER_S = 40


def environment(state_dir: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("AQUIFER_")}
    return {**kept, "AQUIFER_STATE_DIR": str(state_dir)}


def aquifer(state_dir: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "aquifer", *words, "--json"],
        cwd=ROOT,
        env=environment(state_dir),
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def living(folder: Path, log: Path, stop: signal.Signals) -> Iterator[httpx.Client]:
    """A live cell and a client of its API; at the end it gets a signal, and ends well."""
    words = ["run", "--folder", str(folder), "--jobs", "60", "--port", "0", "--speed", "600"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "aquifer", *words],
            cwd=ROOT,
            env=environment(folder.parent),
            stdout=out,
            stderr=out,
        )
        try:
            with httpx.Client(base_url=address(process, log), timeout=ANSWER_S) as client:
                yield client
            process.send_signal(stop)
            assert process.wait(ANSWER_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"dashboard: (http://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the cell did not start: {log.read_text()}")


def letters(state_dir: Path, amount: int) -> list[dict[str, Any]]:
    """The dead letters, once there are so many."""
    deadline = time.monotonic() + ANSWER_S
    found: list[dict[str, Any]] = []
    while time.monotonic() < deadline and len(found) < amount:
        found = aquifer(state_dir, "dead-letters", "list")["dead_letters"]
    assert len(found) == amount
    return found


def put_garbage(folder: Path) -> None:
    database = Database(folder / "cell.sqlite")
    asyncio.run(SqliteCommandSink(database).send(Message(b"\xff garbage")))
    database.close()


def until_finished(client: httpx.Client, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + ANSWER_S
    answer: dict[str, Any] = {}
    while time.monotonic() < deadline:
        answer = client.get(f"/v1/jobs/{job}").json()
        if answer.get("state") == "finished":
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{job} did not finish: {answer}")


@pytest.mark.slow
def test_a_live_cell_takes_jobs_over_http_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    job = {
        "job": "mine-1",
        "queue": "search-urgent",
        "groups": [{"slots": 4}],
        "flavours": [{"accelerator": "a100"}],
        "tier": "premium",
        "runtime": {"estimate_s": 300},
    }
    with living(folder, tmp_path / "first.log", signal.SIGINT) as client:
        for _ in range(2):  # sent twice under one key: one job
            answer = client.post(
                "/v1/commands/SubmitJob", json=job, headers={"Idempotency-Key": "k1"}
            )
            assert answer.status_code == 202
        story = until_finished(client, "mine-1")
        events = [event["event"] for event in story["events"]]
        assert events[0] == "JobAdmitted"
        assert events[-1] == "JobFinished"
        before = client.get("/v1/summary").json()["round"]
    with living(folder, tmp_path / "second.log", signal.SIGTERM) as client:
        assert until_finished(client, "mine-1")["events"] == story["events"]
        words = ("--queue", "search-urgent", "--accelerator", "a100", "--estimate-s", "60")
        aquifer(folder, "submit", "mine-2", *words)
        until_finished(client, "mine-2")
        assert client.get("/v1/summary").json()["round"] > before
        put_garbage(folder)
        (letter,) = letters(folder, 1)
        assert (letter["code"], letter["value"]) == ("invalid_utf8", "\\xff garbage")
        aquifer(folder, "dead-letters", "resend", letter["place"])
        again = letters(folder, 2)[1]
        assert (again["code"], again["place"] != letter["place"]) == (letter["code"], True)
    verdict = aquifer(folder, "audit", "verify")
    assert verdict["intact"]
    assert verdict["decided_again"] == verdict["rounds"] > before


def test_a_process_that_died_before_a_round_leaves_its_ids_to_nobody() -> None:
    """Else reports of the next one would be taken for duplicates, and lost."""
    cell = Cell("c")
    assert new_session(cell) != new_session(cell)
