"""A client of the read API that writes, looks what became of it, and notes everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

import httpx

from domain.commands import CancelJob, Command, SubmitJob
from domain.specs import Flavour, ReplicaGroup, Runtime
from streams.envelope import body_of
from tests.faults.history import SOURCE, Op
from tests.system.command_file import QUEUES

TIMEOUT_S: Final = 8.0
AGAIN_S: Final = 0.2
LOOKS: Final = 25
"""So often it looks for an outcome, and then goes on with other things."""
ABSENT: Final = {404}
OPEN: Final = {429, 500, 502, 503, 504}
"""Answers after which a write may or may not have been done, or is to be tried again."""


class Client:
    """One session: it never asks for less than it has seen."""

    def __init__(self, number: int, urls: list[str], history: list[Op]) -> None:
        self._number = number
        self._urls = urls
        self._history = history
        self._random = Random(number)
        self._seen = 0
        self._jobs: list[str] = []
        self._made = 0

    async def run(self, going_on: Callable[[], bool], per_s: float) -> None:
        """Submit, follow, read and cancel until told to end."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            while going_on():
                begun = time.monotonic()
                chance = self._random.random()
                if chance < 0.5 or not self._jobs:
                    await self._submit(http, going_on)
                elif chance < 0.6:
                    await self._write(
                        http, going_on, CancelJob(job=self._random.choice(self._jobs))
                    )
                else:
                    await self._read(http, self._random.choice(self._jobs[-50:]))
                await asyncio.sleep(max(0.0, 1 / per_s - (time.monotonic() - begun)))

    async def _submit(self, http: httpx.AsyncClient, going_on: Callable[[], bool]) -> None:
        job = f"c{self._number}-{self._made}"
        command = SubmitJob(
            job=job,
            queue=self._random.choice(QUEUES),
            groups=(ReplicaGroup(slots=self._random.choice((1, 1, 2, 4))),),
            flavours=(Flavour(accelerator="h100"),),
            runtime=Runtime(estimate_s=self._random.choice((30, 60, 300)), grace_s=5),
            max_restarts=3,
        )
        if await self._write(http, going_on, command):
            self._jobs.append(job)
            await self._read(http, job)

    async def _write(
        self, http: httpx.AsyncClient, going_on: Callable[[], bool], command: Command
    ) -> bool:
        """Send until it is acknowledged, always with one key; then look what became of it."""
        key = f"k{self._number}-{self._made}"
        self._made += 1
        path = f"/v1/commands/{type(command).__name__}"
        while True:
            op = self._begin("write", key)
            answer = await self._ask(
                op, http.post, path, json=body_of(command), headers={"Idempotency-Key": key}
            )
            if answer is not None and answer.status_code == 202:
                op.result = "ok"
                break
            if answer is not None and answer.status_code not in OPEN:
                op.result = "refused"
                return False
            if not going_on():
                return False
            await asyncio.sleep(AGAIN_S)
        for _ in range(LOOKS):
            if not going_on():
                break
            op = await self._get("outcome", key, http, f"/v1/commands/{SOURCE}/{key}")
            if op.result == "ok":
                self._seen = max(self._seen, op.body["round"])
                return bool(op.body["outcome"] == "accepted")
            await asyncio.sleep(AGAIN_S)
        return False

    async def _read(self, http: httpx.AsyncClient, job: str) -> None:
        await self._get("read", job, http, f"/v1/jobs/{job}")

    async def _get(self, kind: Any, key: str, http: httpx.AsyncClient, path: str) -> Op:
        op = self._begin(kind, key)
        op.min_round = self._seen
        answer = await self._ask(op, http.get, path, params={"min_round": self._seen})
        if answer is None or answer.status_code in OPEN:
            return op
        op.body = answer.json()
        op.result = "absent" if answer.status_code in ABSENT else "ok"
        op.round = int(answer.headers.get("Aquifer-Round") or op.body["round"])
        self._seen = max(self._seen, op.round)
        return op

    def _begin(self, kind: Any, key: str) -> Op:
        op = Op(self._number, kind, key, time.monotonic(), body={})
        self._history.append(op)
        return op

    async def _ask(self, op: Op, how: Any, path: str, **asked: Any) -> httpx.Response | None:
        """None if no answer came: then it may have been done."""
        url = self._random.choice(self._urls)
        try:
            answer: httpx.Response = await how(url + path, **asked)
        except httpx.HTTPError:
            return None
        finally:
            op.end_s = time.monotonic()
        return answer
