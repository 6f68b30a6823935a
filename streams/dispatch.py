"""Dispatch: what a believed round tells the node agents.

One instruction speaks of one attempt, so of a whole gang: each agent looks for its own node in it,
and knows its peers without a further question. Agents may get an instruction twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from domain.fact import Placed
from domain.facts import (
    AttemptEnded,
    AttemptGrown,
    AttemptShrinking,
    AttemptShrunk,
    AttemptStarted,
    AttemptStopping,
)
from domain.ledger import canonical

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.ledger import Round
    from domain.runs import Run


class Group(Struct, frozen=True, gc=False):
    """What each replica of a group gets."""

    name: str
    slots: int
    share_milli: int = 1000
    host_cpu_milli: int = 0
    host_memory_mib: int = 0


class Start(Struct, frozen=True, gc=False, tag_field="t", tag="Start"):
    """Run the attempt's replicas on these nodes, beside those that it has."""

    job: str
    attempt: int
    accelerator: str
    nodes: list[Placed]
    groups: list[Group]
    """The third number of each of `nodes` is an index in this list."""
    started_ms: int
    estimate_s: int | None = None
    checkpoint_interval_s: int = 0
    checkpoint_write_s: int = 0
    restore_s: int = 0
    part: int = 0
    """Of an elastic attempt: what it grows by; 0: the gang that it starts with."""


class Stop(Struct, frozen=True, gc=False, tag_field="t", tag="Stop"):
    """Stop the attempt, or a part of it, and report `stopped` before `stop_by_ms`."""

    job: str
    attempt: int
    nodes: list[Placed]
    stop_by_ms: int
    reason: str
    part: int = 0


class Kill(Struct, frozen=True, gc=False, tag_field="t", tag="Kill"):
    """The attempt is over for the cell: an agent that still runs a part of it ends that now.

    It names no nodes: whoever has no part in the attempt has nothing to do. Every attempt is told
    to be over, so that the instructions alone say what stands.
    """

    job: str
    attempt: int
    part: int = 0
    """Only this part of it; 0: all of it."""


Instruction = Start | Stop | Kill

_decoder: Final[msgspec.json.Decoder[Instruction]] = msgspec.json.Decoder(Instruction, strict=True)


def encode(instruction: Instruction) -> bytes:
    return canonical(instruction)


def decode(data: bytes) -> Instruction:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)


def instructions(cell: Cell, round: Round) -> list[Instruction]:
    """What the agents must hear of the round; `cell` is the state right after it."""
    told: list[Instruction] = []
    for fact in round.facts:
        if isinstance(fact, AttemptStarted | AttemptStopping | AttemptGrown | AttemptShrinking):
            run = _live(cell, fact)
            if run is None:
                continue  # it ended in the same round
            starts = isinstance(fact, AttemptStarted | AttemptGrown)
            told.append(_start(run) if starts else _stop(run))
        elif isinstance(fact, AttemptEnded):
            told.append(Kill(fact.job, fact.attempt))
        elif isinstance(fact, AttemptShrunk):
            told.append(Kill(fact.job, fact.attempt, fact.part))
    return told


def _live(
    cell: Cell, fact: AttemptStarted | AttemptStopping | AttemptGrown | AttemptShrinking
) -> Run | None:
    job = cell.jobs.get(fact.job)
    if job is None or job.run is None or job.run.attempt != fact.attempt:
        return None
    if isinstance(fact, AttemptGrown | AttemptShrinking):
        return job.parts.get(fact.part)
    return job.run


def standing(told: Iterable[Instruction]) -> list[Instruction]:
    """Of all that was told, what still counts: each job's newest attempt, or that it is over.

    What is told late or again brings no attempt back, whoever tells it.
    """
    stands: dict[str, list[Instruction]] = {}
    for instruction in told:
        before = stands.get(instruction.job)
        newest = before[0] if before else None
        if instruction.part:
            if before and isinstance(newest, Start) and newest.attempt == instruction.attempt:
                _part(before, instruction)
        elif isinstance(instruction, Stop):
            if before and isinstance(newest, Start) and newest.attempt == instruction.attempt:
                before.append(instruction)
        elif newest is None or _age(newest) < _age(instruction):
            stands[instruction.job] = [instruction]
    return [instruction for job in stands.values() for instruction in job]


def _part(stands: list[Instruction], instruction: Instruction) -> None:
    """A part of an attempt that stands: it comes, leaves, or is over."""
    if isinstance(instruction, Kill):
        stands[:] = [i for i in stands if i.part != instruction.part]
        stands.append(instruction)
    elif instruction not in stands and Kill(*_named(instruction)) not in stands:
        stands.append(instruction)


def _named(instruction: Instruction) -> tuple[str, int, int]:
    return instruction.job, instruction.attempt, instruction.part


def _age(instruction: Instruction) -> tuple[int, bool]:
    """The end of an attempt comes after its start."""
    return instruction.attempt, isinstance(instruction, Kill)


def outstanding(cell: Cell) -> list[Instruction]:
    """All that agents would have to know if they had heard nothing before."""
    told: list[Instruction] = []
    for job in cell.jobs.values():
        if job.run is None or not job.run.started_ms:
            continue
        for run in (job.run, *job.parts.values()):
            told.append(_start(run))
            if run.stop_by_ms:
                told.append(_stop(run))
    return told


def _start(run: Run) -> Start:
    spec = run.job.shape.spec
    runtime = spec.runtime
    groups = [
        Group(g.name, g.slots, g.share_milli, g.host_cpu_milli, g.host_memory_mib)
        for g in spec.groups
    ]
    return Start(
        run.job.id,
        run.attempt,
        run.accelerator,
        run.nodes,
        groups,
        run.started_ms,
        run.job.estimate_s,
        runtime.checkpoint_interval_s,
        runtime.checkpoint_write_s,
        runtime.restore_s,
        run.part,
    )


def _stop(run: Run) -> Stop:
    parts = () if run.part else run.job.parts.values()
    nodes = [placed for r in (run, *parts) for placed in r.nodes]
    return Stop(run.job.id, run.attempt, nodes, run.stop_by_ms, run.stop_reason, run.part)
