"""Jobs and attempts as the naive model knows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.commands import SubmitJob


@dataclass
class Attempt:
    job: str
    number: int
    nodes: list[tuple[str, int, int, int]]
    accelerator: str
    started: bool = False
    running: bool = False
    stopping: bool = False
    waits: bool = False
    parts: dict[int, list[tuple[str, int, int, int]]] = field(default_factory=dict)
    leaving: set[int] = field(default_factory=set)

    @property
    def places(self) -> list[tuple[str, int, int, int]]:
        return [placed for nodes in (self.nodes, *self.parts.values()) for placed in nodes]


@dataclass
class NaiveJob:
    spec: SubmitJob
    order: int
    attempt: Attempt | None = None
    attempts: int = 0
    rests_until_ms: int = 0

    @property
    def size(self) -> int:
        return sum(g.count * g.slots * g.share_milli for g in self.spec.groups)

    @property
    def line(self) -> SubmitJob:
        """What it shares with all jobs of its line."""
        runtime = self.spec.runtime.model_copy(update={"estimate_s": None})
        return self.spec.model_copy(update={"job": "x", "labels": {}, "runtime": runtime})
