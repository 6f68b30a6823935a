"""A simulation whose cell rents: what providers deliver joins its fleet, and leaves it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from streams.fleet import Fleet
from streams.providers import Provider, node_of
from streams.renting import Renter, Rules
from streams.simulate import Simulation

DAY_MS: Final = 86_400_000


class Deliveries:
    """The machines of providers that have none: their agents are those of a fleet."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = providers
        self._there: dict[str, set[str]] = {p.name: set() for p in providers}

    def join(self, fleet: Fleet, now_ms: int) -> int:
        """What was delivered joins the fleet, what was taken away is dead; how many are there."""
        for provider in self._providers:
            there = self._there[provider.name]
            ready = {r.node: r for r in provider.held(now_ms) if r.ready}
            for node in sorted(there - ready.keys()):
                fleet.agent.drop_node(node, now_ms)
            new = [node_of(provider.name, r) for n, r in ready.items() if n not in there]
            fleet.add_nodes(new, now_ms)
            self._there[provider.name] = set(ready)
        return self.there

    @property
    def there(self) -> int:
        """Nodes."""
        return sum(map(len, self._there.values()))


class Rented:
    def __init__(
        self,
        simulation: Simulation,
        providers: Sequence[Provider],
        rules: Rules,
        *,
        every_ms: int = 60_000,
    ) -> None:
        """Who rents looks every `every_ms`."""
        self.simulation = simulation
        self.renter = Renter(providers, rules)
        self.most = 0
        """Rented nodes that were there at once."""
        self._every_ms = every_ms
        self._idle_ms = 1000 * rules.patience_s + DAY_MS
        self._deliveries = Deliveries(providers)

    def run(self) -> None:
        """To the end of all jobs; or until, for a day beyond the patience of the rules, nothing
        happens in the cell and nothing rented is there: what waits then waits for ever."""
        simulation = self.simulation
        look_ms = busy_ms = simulation.now_ms
        while simulation.arrived < simulation.arrivals or simulation.cell.jobs:
            next_ms = simulation.next_ms()
            if next_ms is not None or self._deliveries.there:
                busy_ms = look_ms
            elif look_ms > busy_ms + self._idle_ms:
                return
            now_ms = look_ms if next_ms is None else min(next_ms, look_ms)
            simulation.step(now_ms)
            if now_ms >= look_ms:
                self._look(now_ms)
                look_ms = now_ms + self._every_ms

    def _look(self, now_ms: int) -> None:
        simulation = self.simulation
        for command in self.renter.step(simulation.cell, now_ms):
            simulation.give(command)
        self.most = max(self.most, self._deliveries.join(simulation.fleet, now_ms))
