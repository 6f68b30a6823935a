"""A scenario on a virtual clock: the same decider, ledger and agents, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Raw

from domain.cell import Cell
from domain.commands import Command
from domain.ledger import Accepted, Round, Signer
from streams.agent import estimated
from streams.clockwork import Clockwork
from streams.fleet import Fleet
from streams.measure import Measure
from streams.scenario import EPOCH_MS, Scenario

SOURCE: Final = "simulation"
PARTITION: Final = 1
"""An input of its own: a live cell that goes on from here reads its inbox (0) from the start."""
HEARD: Final = 2
"""An input of its own for what others say."""


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
        then: Callable[[Cell, Round], None] | None = None,
    ) -> None:
        """`append` gets each record of the ledger, `then` each round with the cell right after it.

        `patience_ms`: see `Agent`.
        """
        self.cell = Cell(name)
        self.measure = Measure()
        self.fleet = Fleet(
            lambda start: scenario.work.get(start.job) or estimated(start),
            patience_ms=patience_ms,
            outages=scenario.outages,
            origin_ms=origin_ms,
        )
        self._append = append
        self._then = then
        self._heard = 0
        self._clockwork = Clockwork(
            self.cell,
            self.fleet,
            signer,
            self._believed,
            voice=(PARTITION, SOURCE),
            origin_ms=origin_ms,
            round_ms=round_ms,
        )
        self._origin_ms = origin_ms
        self._arrivals = scenario.arrivals
        self._arrived = 0
        for quota in scenario.quotas:
            self._clockwork.say_command(quota)
        self.fleet.add_nodes(scenario.nodes, origin_ms)

    def _believed(self, made: Round, record: bytes) -> None:
        self._append(record)
        self.measure.observe(made, self.cell)
        if self._then is not None:
            self._then(self.cell, made)

    @property
    def now_ms(self) -> int:
        return self._clockwork.now_ms

    @property
    def arrived(self) -> int:
        return self._arrived

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
            next_ms = self.next_ms()
            if next_ms is None or (until_ms is not None and next_ms > until_ms):
                return
            self.step(next_ms)
            yield self._arrived

    def next_ms(self) -> int | None:
        """The next moment on the grid at which something happens."""
        return self._clockwork.next_ms(self._next_arrival_ms())

    def step(self, now_ms: int) -> None:
        """All that happens at this moment."""
        self._clockwork.now_ms = now_ms
        self._take_arrivals()
        self._clockwork.step()

    def hear(self, source: str, id_: str, type_: str, data: bytes) -> None:
        """Another one's command, in canonical form, comes for the next step."""
        place = (HEARD, self._heard, id_, source, type_, source, self.now_ms)
        self._heard += 1
        self._clockwork.take([Accepted(*place, Raw(data))])

    def give(self, command: Command) -> None:
        """An operator's command comes for the next step."""
        self._clockwork.say_command(command)

    def _next_arrival_ms(self) -> int | None:
        if self._arrived == len(self._arrivals):
            return None
        return self._origin_ms + self._arrivals[self._arrived].at_ms

    def _take_arrivals(self) -> None:
        since_ms = self.now_ms - self._origin_ms
        while self._arrived < len(self._arrivals):
            arrival = self._arrivals[self._arrived]
            if arrival.at_ms > since_ms:
                return
            self._arrived += 1
            self._clockwork.say(arrival.type, arrival.body)
