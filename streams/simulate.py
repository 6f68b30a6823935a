"""A cell on a virtual clock: the same decider, ledger and agents, without waiting.

Event-driven: the clock jumps to the next submission, agent's event, or moment at which something is
due in the cell. It stands on a grid of `round_ms`, so that what happens within one step is one
round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Raw

from domain.cell import Cell
from domain.commands import Command
from domain.ledger import Accepted, Round, Signer, canonical
from domain.timers import next_due_ms
from streams import dispatch, rounds
from streams.agent import estimated
from streams.decider import Settings
from streams.envelope import body_of
from streams.fleet import Fleet
from streams.measure import Measure
from streams.scenario import EPOCH_MS, Body, Scenario

SOURCE: Final = "simulation"
ACTOR: Final = "simulation"
PARTITION: Final = 1
"""An input of its own: a live cell that goes on from here reads its inbox (0) from the start."""
BOUNDS: Final = Settings()
"""Of a round, the same as a live decider's."""
IDLE_ROUNDS: Final = 100
"""So many rounds without a command or a fact at one moment mean that time stands still."""


class Simulation:
    """Runs a scenario from its start; `cell` and `fleet` may be taken over by a live run."""

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        signer: Signer,
        append: Callable[[bytes], object],
        *,
        origin_ms: int = EPOCH_MS,
        round_ms: int = 1000,
        patience_ms: int = 60_000,
    ) -> None:
        """`append` gets each record of the ledger. `patience_ms`: see `Agent`."""
        self.cell = Cell(name)
        self.measure = Measure()
        self.now_ms = origin_ms
        self.fleet = Fleet(
            lambda start: scenario.work.get(start.job) or estimated(start),
            patience_ms=patience_ms,
            outages=scenario.outages,
            origin_ms=origin_ms,
        )
        self._signer = signer
        self._append = append
        self._origin_ms = origin_ms
        self._round_ms = round_ms
        self._arrivals = scenario.arrivals
        self._arrived = 0
        self._offset = 0
        self._pending: list[Accepted] = []
        self._due_ms: int | None = None
        """When something is due in the cell without any command."""
        self._full = False
        """The last round's work was spent before all that could start was started."""
        for quota in scenario.quotas:
            self._accept_command(quota)
        self.fleet.add_nodes(scenario.nodes, origin_ms)

    @property
    def arrivals(self) -> int:
        return len(self._arrivals)

    @property
    def last_submission_ms(self) -> int:
        return self._origin_ms + (self._arrivals[-1].at_ms if self._arrivals else 0)

    def run(self, until_ms: int | None = None) -> Iterator[int]:
        """Run to the end, or up to a moment; yields the number of arrivals after each step.

        The end is when all has arrived and no job is left, or nothing will ever happen again.
        """
        while self._arrived < len(self._arrivals) or self.cell.jobs or not self.cell.head.round:
            next_ms = self._next_ms()
            if next_ms is None or (until_ms is not None and next_ms > until_ms):
                return
            self.now_ms = next_ms
            self._take_arrivals()
            for command in self.fleet.advance(next_ms):
                self._accept_command(command)
            self._rounds()
            yield self._arrived

    def _next_ms(self) -> int | None:
        """The next moment on the grid at which something happens."""
        moments = [m for m in (self.fleet.next_ms(), self._due_ms) if m is not None]
        if self._arrived < len(self._arrivals):
            moments.append(self._origin_ms + self._arrivals[self._arrived].at_ms)
        if not moments:
            return None
        steps = -(-(min(moments) - self._origin_ms) // self._round_ms)
        return max(self.now_ms, self._origin_ms + steps * self._round_ms)

    def _take_arrivals(self) -> None:
        since_ms = self.now_ms - self._origin_ms
        while self._arrived < len(self._arrivals):
            arrival = self._arrivals[self._arrived]
            if arrival.at_ms > since_ms:
                return
            self._arrived += 1
            self._accept(arrival.type, arrival.body)

    def _accept_command(self, command: Command) -> None:
        self._accept(type(command).__name__, body_of(command))

    def _accept(self, type_: str, body: Body) -> None:
        accepted = Accepted(
            PARTITION,
            self._offset,
            str(self._offset),
            SOURCE,
            type_,
            ACTOR,
            self.now_ms,
            Raw(canonical(body)),
        )
        self._offset += 1
        self._pending.append(accepted)

    def _rounds(self) -> None:
        """Decide what has come, and all that is due at this moment."""
        idle = 0
        while self._pending or self._full or self._is_due():
            taken = rounds.cut(self._pending[: BOUNDS.max_commands], BOUNDS.max_bytes)
            del self._pending[: len(taken)]
            made = self._round(taken)
            idle = 0 if taken or made.facts else idle + 1
            assert idle < IDLE_ROUNDS, f"what is due at {self._due_ms} never passes"

    def _is_due(self) -> bool:
        return self._due_ms is not None and self._due_ms <= self.now_ms

    def _round(self, taken: Sequence[Accepted]) -> Round:
        cell = self.cell
        header = rounds.header_of(cell, self.now_ms, BOUNDS.work)
        candidate = rounds.propose(cell, header, taken, self._signer)
        made = candidate.round
        self._append(candidate.record)
        cell.believe(candidate.head, made.inputs)
        self._due_ms = next_due_ms(cell)
        self._full = bool(made.facts) and cell.unfinished
        self.fleet.handle(dispatch.instructions(cell, made), self.now_ms)
        self.measure.observe(made, cell)
        return made
