"""Dispatch: what a believed round tells the node agents.

One instruction speaks of one attempt, so of a whole gang: each agent looks for its own node in it,
and knows its peers without a further question. Agents may get an instruction twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from domain.facts import AttemptEnded, AttemptStarted, AttemptStopping, Placed
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
    """Run the attempt's replicas on these nodes."""

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


class Stop(Struct, frozen=True, gc=False, tag_field="t", tag="Stop"):
    """Stop the attempt and report `stopped` before `stop_by_ms`."""

    job: str
    attempt: int
    nodes: list[Placed]
    stop_by_ms: int
    reason: str


class Kill(Struct, frozen=True, gc=False, tag_field="t", tag="Kill"):
    """The attempt is over for the cell: an agent that still runs a part of it ends that now.

    It names no nodes: whoever has no part in the attempt has nothing to do. Every attempt is told
    to be over, so that the instructions alone say what stands.
    """

    job: str
    attempt: int


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
        if isinstance(fact, AttemptStarted | AttemptStopping):
            job = cell.jobs.get(fact.job)
            run = job.run if job is not None else None
            if run is None or run.attempt != fact.attempt:
                continue  # it ended in the same round
            told.append(_start(run) if isinstance(fact, AttemptStarted) else _stop(run))
        elif isinstance(fact, AttemptEnded):
            told.append(Kill(fact.job, fact.attempt))
    return told


def standing(told: Iterable[Instruction]) -> list[Instruction]:
    """Of all that was told, what still counts: each job's newest attempt, or that it is over.

    What is told late or again brings no attempt back, whoever tells it.
    """
    stands: dict[str, list[Instruction]] = {}
    for instruction in told:
        before = stands.get(instruction.job)
        newest = before[0] if before else None
        if isinstance(instruction, Stop):
            if before and isinstance(newest, Start) and newest.attempt == instruction.attempt:
                before.append(instruction)
        elif newest is None or _age(newest) < _age(instruction):
            stands[instruction.job] = [instruction]
    return [instruction for job in stands.values() for instruction in job]


def _age(instruction: Instruction) -> tuple[int, bool]:
    """The end of an attempt comes after its start."""
    return instruction.attempt, isinstance(instruction, Kill)


def outstanding(cell: Cell) -> list[Instruction]:
    """All that agents would have to know if they had heard nothing before."""
    told: list[Instruction] = []
    for job in cell.jobs.values():
        run = job.run
        if run is not None and run.started_ms:
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
    )


def _stop(run: Run) -> Stop:
    return Stop(run.job.id, run.attempt, run.nodes, run.stop_by_ms, run.stop_reason)
