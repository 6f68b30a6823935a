"""What clients did and saw over HTTP, and whether the ledger bears it out.

Jepsen's way: each operation is noted when it begins and when it ends, with what it is known to
have done. An answer that never came leaves an outcome open. Afterwards the whole history is held
against the believed rounds: what was acknowledged is decided once; an outcome is told as it is; a
read is of the round that it names or a later one, which is not older than what was asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from domain.cell import Cell
from domain.evolve import evolve
from domain.ledger import Accepted, Head, Round
from projections.reading import bare
from projections.rows import project
from streams.reader import Believed

SOURCE: Final = "http"
Result = Literal["ok", "absent", "refused", "unknown"]


class Op(Struct):
    """One request of a client."""

    client: int
    kind: Literal["write", "outcome", "read"]
    key: str
    """Id of the command, or name of the job that is read."""
    begin_s: float
    end_s: float = 0.0
    result: Result = "unknown"
    min_round: int = 0
    round: int = 0
    """That the answer names."""
    body: dict[str, Any] = {}

    @property
    def seen_stale(self) -> bool:
        """The answer is of an earlier round than was asked for."""
        return self.result in ("ok", "absent") and self.round < self.min_round


def originals(round: Round) -> list[Accepted]:
    """The round's commands that are no copies of others that were decided."""
    copies = set(round.duplicates)
    return [command for n, command in enumerate(round.commands) if n not in copies]


class Truth:
    """What the believed rounds say of commands and of jobs."""

    def __init__(self, cell: str) -> None:
        self.decided: Counter[str] = Counter()
        """By id: how often a command of the API was decided and not taken for a copy."""
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.jobs: defaultdict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        """Rows of a job, each with the round from which on it stands."""
        self._cell = Cell(cell)

    def follow(self, round: Round, head: Head) -> None:
        self.decided.update(c.id for c in originals(round) if c.source == SOURCE)
        for row in project(self._cell, round, head, evolve(self._cell, round, head)):
            if row.table == "outcomes" and row.key[1] == SOURCE and row.values is not None:
                self.outcomes[str(row.key[2])] = row.values
            elif row.table == "jobs" and row.values is not None:
                self.jobs[row.values["job"]].append((head.round, row.values))


def truth(cell: str, believed: Iterable[Believed]) -> Truth:
    made = Truth(cell)
    for one in believed:
        made.follow(one.round, one.head)
    return made


def check(history: Sequence[Op], known: Truth) -> list[str]:
    """What the history shows that must not be; nothing if all is well."""
    return [
        fault
        for op in history
        for fault in (
            _write(op, known)
            if op.kind == "write"
            else _freshness(op)
            or (_outcome(op, known) if op.kind == "outcome" else _read(op, known))
        )
    ]


def _write(op: Op, known: Truth) -> list[str]:
    times = known.decided[op.key]
    if op.result == "ok" and times == 0:
        return [f"lost write: {op.key} was acknowledged to client {op.client} and never decided"]
    if times > 1:
        return [f"doubled write: {op.key} was decided {times} times"]
    return []


def _freshness(op: Op) -> list[str]:
    if op.seen_stale:
        asked = f"{op.key} at round {op.min_round} or later"
        return [f"stale read: client {op.client} asked for {asked}, and got round {op.round}"]
    return []


def _outcome(op: Op, known: Truth) -> list[str]:
    told = known.outcomes.get(op.key)
    if op.result == "absent" and told is not None and told["round"] <= op.round:
        return [
            f"stale read: {op.key} has no outcome at round {op.round}, and has one since before"
        ]
    if op.result == "ok" and (told is None or not _same(told, op.body)):
        return [f"wrong outcome: {op.key} is {told}, client {op.client} was told {op.body}"]
    return []


def _read(op: Op, known: Truth) -> list[str]:
    rows = known.jobs.get(op.key, [])
    if op.result == "absent":
        if rows and rows[0][0] <= op.round:
            return [f"stale read: {op.key} is not there at round {op.round}"]
        return []
    if op.result != "ok":
        return []
    ends = [since for since, _ in rows[1:]] + [1 << 62]
    matching = [end for (_, row), end in zip(rows, ends, strict=True) if _same(row, op.body)]
    if not matching:
        return [f"wrong read: {op.key} never was as client {op.client} saw it: {op.body}"]
    if matching[-1] <= op.round:
        return [
            f"stale read: client {op.client} saw {op.key} at round {op.round} as it was before"
            f" round {matching[-1]}"
        ]
    return []


def _same(row: dict[str, Any], body: dict[str, Any]) -> bool:
    return all(body.get(name) == value for name, value in bare(row).items())
