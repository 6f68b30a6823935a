"""Regions on one virtual clock: each decides by itself, and hears of the others only by letters.

A letter takes `latency_ms`, rounded up to the grid. Inventory is told every 2 s if it has changed;
what has not changed is told again every 30 s to those who have work that waits, if there is
anything free to tell of: nobody else would decide otherwise for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, Final

from domain.cell import Cell
from domain.ledger import Round, Signer
from domain.pool import inventory
from domain.pool.commands import SetPeers
from domain.pool.facts import HandoffAccepted, HandoffOffered
from domain.pool.specs import HandoffRules, PeerSpec, Stock
from streams import outbox
from streams.measure import pooled
from streams.outbox import Letter
from streams.scenario import EPOCH_MS, Scenario
from streams.simulate import Simulation

CHANGED_MS: Final = 2000
AGAIN_MS: Final = 30_000


class Pooled:
    """Runs the scenarios of all regions to their end."""

    def __init__(
        self,
        scenarios: Mapping[str, Scenario],
        signer: Signer,
        append: Callable[[bytes], object],
        *,
        rules: HandoffRules | None = None,
        latency_ms: int = 200,
        round_ms: int = 1000,
        origin_ms: int = EPOCH_MS,
    ) -> None:
        self.now_ms = origin_ms
        self.offers = 0
        self.hops: Counter[str] = Counter()
        """Hand-offs by the job's name."""
        self.letters: Counter[str] = Counter()
        self.origin_ms, self._round_ms, self._latency_ms = origin_ms, round_ms, latency_ms
        self._post: list[tuple[int, int, str, Letter]] = []
        self._changed: dict[str, None] = {}
        """Regions that made a round since their inventory was looked at."""
        self._stock: dict[str, list[Stock]] = {}
        self._waits: dict[str, bool] = {}
        self._free: dict[str, bool] = {}
        self._told: dict[tuple[str, str], tuple[int, list[Stock]]] = {}
        """When a region told a peer last, and what."""
        self.regions = {
            name: Simulation(
                name,
                scenario,
                signer,
                append,
                origin_ms=origin_ms,
                round_ms=round_ms,
                then=self._after_round,
            )
            for name, scenario in scenarios.items()
        }
        for name, region in self.regions.items():
            peers = tuple(PeerSpec(region=p, actor=p) for p in self.regions if p != name)
            region.give(SetPeers(region=name, peers=peers, rules=rules or HandoffRules()))

    def run(self) -> Iterator[int]:
        """To the end; yields the number of arrivals after each step."""
        while not self._over():
            next_ms = self._next_ms()
            if next_ms is None:
                return
            self.now_ms = next_ms
            self._deliver()
            for region in self.regions.values():
                region.step(next_ms)
            self._tell_inventory()
            yield sum(region.arrived for region in self.regions.values())

    def _over(self) -> bool:
        return all(
            region.arrived == region.arrivals
            and region.cell.head.round
            and not region.cell.jobs
            and not region.cell.pool.flights
            for region in self.regions.values()
        )

    def _next_ms(self) -> int | None:
        moments = [m for r in self.regions.values() if (m := r.next_ms()) is not None]
        if self._post:
            moments.append(self._post[0][0])
        moments += (due_ms for *_, due_ms in self._inventory_due())
        if not moments:
            return None
        steps = -(-(min(moments) - self.origin_ms) // self._round_ms)
        return max(self.now_ms, self.origin_ms + steps * self._round_ms)

    # --- letters ---

    def _after_round(self, cell: Cell, round: Round) -> None:
        self._changed[cell.name] = None
        for letter in outbox.letters(cell, round):
            self._send(cell.name, letter)
        for fact in round.facts:
            if isinstance(fact, HandoffAccepted):
                self.hops[fact.job.partition("@")[0]] += 1
            elif isinstance(fact, HandoffOffered):
                self.offers += 1

    def _send(self, source: str, letter: Letter) -> None:
        self.letters[letter.type] += 1
        due_ms = self.now_ms + self._latency_ms
        heappush(self._post, (due_ms, self.letters.total(), source, letter))

    def _deliver(self) -> None:
        while self._post and self._post[0][0] <= self.now_ms:
            _, _, source, letter = heappop(self._post)
            region = self.regions[letter.to]
            region.hear(source, letter.id, letter.type, letter.body)

    # --- inventory ---

    def _tell_inventory(self) -> None:
        for name in self._changed:
            region = self.regions[name]
            self._stock[name] = inventory.stock(region.cell)
            self._waits[name] = any(queue.waiting for queue in region.cell.queues.values())
            self._free[name] = any(any(s.free[1:]) for s in self._stock[name])
        self._changed.clear()
        for name, peer, due_ms in self._inventory_due():
            if due_ms <= self.now_ms:
                region = self.regions[name]
                self._told[name, peer] = (self.now_ms, self._stock[name])
                self._send(
                    name, outbox.letter(region.cell, peer, inventory.advert(region.cell, False))
                )

    def _inventory_due(self) -> list[tuple[str, str, int]]:
        """Who has to tell whom what it has, and when."""
        found = []
        for name, stock in self._stock.items():
            for peer in self._stock:
                told_ms, told = self._told.get((name, peer), (0, None))
                if peer == name:
                    continue
                if told != stock:
                    found.append((name, peer, told_ms + CHANGED_MS))
                elif self._waits[peer] and self._free[name]:
                    found.append((name, peer, told_ms + AGAIN_MS))
        return found

    # --- the report ---

    def report(self) -> dict[str, Any]:
        """Waiting of all jobs, what was handed over, and how the work was spread."""
        measures = {name: region.measure for name, region in self.regions.items()}
        for measure in measures.values():
            measure.check()
        begin_ms = self.origin_ms
        span_ms = max(r.last_submission_ms for r in self.regions.values()) - begin_ms
        supply = {
            name: span_ms * sum(node.class_.slots for node in region.cell.nodes.values())
            for name, region in self.regions.items()
        }
        moved, hops = len(self.hops), self.hops.total()
        return {
            **pooled(list(measures.values())),
            "regions": len(self.regions),
            "jobs_moved": moved,
            "hand_offs": hops,
            "hand_offs_per_moved_job": round(hops / max(1, moved), 4),
            "offers": self.offers,
            "demand_over_supply": {
                name: round(m.worked_milli_ms / 1000 / max(1, supply[name]), 3)
                for name, m in measures.items()
            },
            "letters": dict(sorted(self.letters.items())),
            "rounds": sum(m.rounds for m in measures.values()),
        }
