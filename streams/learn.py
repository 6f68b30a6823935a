"""What a ledger shows of its jobs: how much work each needed, and how its attempts went.

An attempt's work is the time from its start to its report, less restore and the writing of
checkpoints: the same sum as the reference agent's (`streams.agent`), so that what is learned of a
simulated history, and run again, ends at the same moments.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from domain.commands import RegisterNode, ReportAttempt, ReportNode, SetQuota
from domain.facts import (
    AttemptEnded,
    AttemptRunning,
    AttemptStarted,
    CheckpointRecorded,
    JobAdmitted,
    NodeLost,
)
from domain.ledger import Accepted, Round
from domain.pool.facts import HandoffAccepted
from domain.pool.guard_facts import JobAdopted
from streams.agent import Work
from streams.scenario import Outage

PATIENCE_MS: Final = 61_000
"""A later report `running` was a slow start; up to this it may have waited for others (`Agent`)."""


class _Need(Struct):
    """Of a job, what its attempts have shown so far; milliseconds of work."""

    restore_ms: int
    write_ms: int
    estimate_ms: int | None
    kept: int = 0
    """Safe in a checkpoint."""
    started_ms: int = 0
    """Of the attempt that runs."""
    begun_ms: int = 0
    kept_before: int = 0
    """Safe when the attempt that runs began."""
    saves: int = 0
    seen: int = 0
    """The most that an attempt had behind it."""
    whole: int | None = None
    """All of it, as the finished attempt shows."""
    failures: int = 0
    half: int | None = None
    """What a failed attempt had behind it, beyond what was safe: half of what was left."""
    startup_ms: int = 0

    def done(self, at_ms: int) -> int:
        """Work behind the attempt at a moment."""
        spent = max(0, at_ms - self.begun_ms - self.saves * self.write_ms)
        return self.kept_before + spent


class Learned(Struct):
    """What is known of a ledger once all of it was read."""

    work: dict[str, Work] = {}
    """By job; of jobs that never started nothing is known."""
    kept_ms: dict[tuple[str, int], int] = {}
    """By job and attempt, if any: work that was safe when it started."""
    assumed: set[str] = set()
    """Jobs whose end the ledger does not show: they get their estimate, or never end."""
    outages: list[Outage] = []
    """In absolute time, of nodes that were lost by silence; see `Lessons`."""
    nodes: dict[str, RegisterNode] = {}
    """That registered, as they did last."""
    accounts: set[str] = set()
    signs_ms: dict[str, int] = {}
    """Of nodes with a lease: their last sign of life."""


class Lessons:
    """Reads rounds in order; needs no cell.

    When a silent node died is not in the ledger, only that it missed a renewal of its lease: it
    counts as dead from that one on, which is late by a third of its lease at most.
    """

    def __init__(self) -> None:
        self.learned = Learned()
        self._needs: dict[str, _Need] = {}
        self._leases: dict[str, int] = {}
        """By node, in milliseconds."""
        self._dead: dict[str, int] = {}
        """Since when, by node."""
        self._handle: Final[dict[type, Any]] = {
            AttemptStarted: self._started,
            AttemptRunning: self._running,
            CheckpointRecorded: self._checkpoint,
            AttemptEnded: self._ended,
            NodeLost: self._lost,
            JobAdmitted: self._admitted,
            HandoffAccepted: self._accepted,
            JobAdopted: self._accepted,
        }

    def read(self, round: Round) -> None:
        refused = {r.command for r in round.refusals}.union(round.duplicates)
        failed = set()
        for index, command in enumerate(round.commands):
            if index in refused:
                continue
            if command.type in (RegisterNode.__name__, ReportNode.__name__):
                self._alive(command, round.header.now_ms)
            elif command.type == SetQuota.__name__:
                self.learned.accounts.add(_body(command)["account"])
            elif command.type == ReportAttempt.__name__ and b'"failed"' in bytes(command.data):
                failed.add(_body(command)["job"])
        for fact in round.facts:
            handle = self._handle.get(type(fact))
            if handle is not None:
                handle(fact, round, failed)

    def end(self) -> Learned:
        """All has been read."""
        learned = self.learned
        for job, need in self._needs.items():
            work = _work(need)
            if work is None:
                continue
            learned.work[job] = work
            if need.whole is None:
                learned.assumed.add(job)
        for node, since_ms in self._dead.items():
            learned.outages.append(Outage(since_ms, 1 << 62, node))
        learned.outages.sort(key=lambda o: (o.at_ms, o.node))
        return learned

    def _alive(self, command: Accepted, now_ms: int) -> None:
        body = _body(command)
        node = body["node"]
        if command.type == RegisterNode.__name__:
            self.learned.nodes[node] = RegisterNode.model_validate_json(bytes(command.data))
            self._leases[node] = 1000 * body.get("lease_s", 0)
            dead_ms = self._dead.pop(node, None)
            if dead_ms is not None:
                self.learned.outages.append(Outage(dead_ms, now_ms, node))
        if self._leases.get(node):
            self.learned.signs_ms[node] = now_ms

    def _lost(self, fact: NodeLost, round: Round, failed: set[str]) -> None:
        lease_ms = self._leases.get(fact.node, 0)
        if fact.reason == "lease_expired" and lease_ms and fact.node in self.learned.signs_ms:
            missed_ms = self.learned.signs_ms.pop(fact.node) + lease_ms // 3
            self._dead[fact.node] = min(missed_ms, round.header.now_ms)

    def _admitted(self, fact: JobAdmitted, round: Round, failed: set[str]) -> None:
        body = _body(round.commands[fact.command])
        runtime = body.get("runtime", {})
        estimate_s = runtime.get("estimate_s")
        self._needs[body["job"]] = _Need(
            1000 * runtime.get("restore_s", 0),
            1000 * runtime.get("checkpoint_write_s", 0),
            None if estimate_s is None else 1000 * estimate_s,
        )

    def _accepted(self, fact: HandoffAccepted | JobAdopted, round: Round, failed: set[str]) -> None:
        """A job from another region: what it had kept there is not known here."""
        self._needs.setdefault(fact.job, _Need(0, 0, None))

    def _started(self, fact: AttemptStarted, round: Round, failed: set[str]) -> None:
        need = self._needs[fact.job]
        need.started_ms = round.header.now_ms
        need.begun_ms = need.started_ms + (need.restore_ms if need.kept else 0)
        need.kept_before, need.saves = need.kept, 0
        if need.kept:
            self.learned.kept_ms[fact.job, fact.attempt] = need.kept

    def _running(self, fact: AttemptRunning, round: Round, failed: set[str]) -> None:
        need = self._needs[fact.job]
        late_ms = round.header.now_ms - need.started_ms
        if late_ms > PATIENCE_MS:
            need.startup_ms = late_ms

    def _checkpoint(self, fact: CheckpointRecorded, round: Round, failed: set[str]) -> None:
        need = self._needs[fact.job]
        need.kept = max(need.kept, need.done(_body(round.commands[fact.command])["at_ms"]))
        need.saves += 1

    def _ended(self, fact: AttemptEnded, round: Round, failed: set[str]) -> None:
        need = self._needs[fact.job]
        if not need.started_ms:
            return  # a claim that was given up before it began
        done = need.done(round.header.now_ms)
        if fact.reason == "finished":
            need.whole = done
        elif fact.reason == "failed" and fact.job in failed:
            need.failures = fact.attempt
            need.half = done - need.kept_before
        need.seen = max(need.seen, done)
        need.started_ms = 0


def _work(need: _Need) -> Work | None:
    """None if it never started."""
    if need.whole is not None:
        return Work(need.whole, need.failures, need.startup_ms)
    if need.half is not None:
        return Work(need.kept_before + 2 * need.half, need.failures, need.startup_ms)
    if not need.seen and not need.started_ms:
        return None
    longer = need.estimate_ms is not None and need.estimate_ms > need.seen
    return Work(need.estimate_ms if longer else None, need.failures, need.startup_ms)


_json: Final = msgspec.json.Decoder(dict[str, Any]).decode


def _body(command: Accepted) -> dict[str, Any]:
    return _json(command.data)
