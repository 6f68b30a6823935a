"""Given facts, when commands, then facts or refusals: cells for tests of the domain."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.cell import Cell
from domain.commands import Command, RegisterNode, SubmitJob
from domain.decide import decide
from domain.evolve import evolve
from domain.facts import AnyFact
from domain.ledger import ENGINE, Accepted, Head, Header, Round, canonical, seal, unseal
from domain.specs import FabricPath, Flavour, ReplicaGroup

H100 = (Flavour(accelerator="h100"),)


class NoKey:
    """For tests that are not about signatures."""

    key_id = "test"

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


def body_of(command: Command) -> bytes:
    return canonical(command.model_dump(mode="json", exclude_defaults=True))


class Given:
    """A cell that rounds are made of, with a twin that only folds their records."""

    def __init__(self, name: str = "test", now_ms: int = 1_000_000) -> None:
        self.cell = Cell(name)
        self.twin = Cell(name)
        self.now_ms = now_ms
        self.offset = 0
        self.records: list[bytes] = []
        self.last: Round | None = None

    def accept(self, command: Command, id_: str | None = None, source: str = "s") -> Accepted:
        self.offset += 1
        data = msgspec.Raw(body_of(command))
        id_ = id_ or f"c{self.offset}"
        kind = type(command).__name__
        return Accepted(0, self.offset - 1, id_, source, kind, "someone", self.now_ms, data)

    def round(self, *commands: Command, after_s: int = 0, work: int = 100_000) -> Round:
        return self.decide([self.accept(c) for c in commands], after_s=after_s, work=work)

    def decide(self, accepted: list[Accepted], after_s: int = 0, work: int = 100_000) -> Round:
        """One round after so much time; its record is sealed, read, and folded into the twin."""
        self.now_ms += after_s * 1000
        header = Header(self.cell.head.round + 1, self.now_ms, work, ENGINE)
        round = decide(self.cell, header, accepted)
        record, head = seal(round, NoKey())
        self.cell.believe(head, round.inputs)
        self.records.append(record)
        self.fold(record, head)
        self.last = round
        return round

    def fold(self, record: bytes, head: Head) -> None:
        read, found = unseal(record, None)
        assert found == head, "a record names its own hash"
        evolve(self.twin, read, found)

    def facts(self, *commands: Command, after_s: int = 0) -> list[AnyFact]:
        return self.round(*commands, after_s=after_s).facts

    def refusal(self, command: Command) -> str:
        round = self.round(command)
        assert len(round.refusals) == 1, f"it was obeyed: {round.facts}"
        return round.refusals[0].code


def node(name: str, *, rack: str = "k0", slots: int = 8, **more: Any) -> RegisterNode:
    path = {"region": "r", "cluster": "c", "block": "b", "rack": rack, **more.pop("path", {})}
    return RegisterNode(
        node=name,
        accelerator=more.pop("accelerator", "h100"),
        slots=slots,
        path=FabricPath(**path),
        **more,
    )


def job(name: str, *, queue: str = "q", count: int = 1, slots: int = 1, **more: Any) -> SubmitJob:
    return SubmitJob(
        job=name,
        queue=queue,
        groups=more.pop("groups", (ReplicaGroup(count=count, slots=slots),)),
        flavours=more.pop("flavours", H100),
        **more,
    )


def of(kind: type[AnyFact], facts: list[AnyFact]) -> list[Any]:
    return [f for f in facts if isinstance(f, kind)]
