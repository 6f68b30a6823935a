"""A provider without machines: it takes time, denies, takes nodes away, and wants to be paid."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from streams.providers import Denied, Offer, Rental


class SimulatedProvider:
    """The same seed gives the same denials and interruptions."""

    def __init__(
        self,
        name: str,
        offers: Sequence[Offer],
        *,
        seed: int = 0,
        deny_ppm: int = 0,
        interrupt_ppm: int = 0,
        notice_s: int = 120,
        retry_s: int = 300,
    ) -> None:
        """`deny_ppm` of the requests are denied, `interrupt_ppm` of the nodes are taken away within
        their first term, `notice_s` after it was said."""
        self.name = name
        self.cost_milli = 0
        """Of all terms that were paid."""
        self.denied = 0
        self.interrupted = 0
        self._offers = tuple(offers)
        self._random = Random(seed)
        self._deny_ppm, self._interrupt_ppm = deny_ppm, interrupt_ppm
        self._notice_ms, self._retry_s = notice_s * 1000, retry_s
        self._rentals: dict[str, Rental] = {}
        self._ready_ms: dict[str, int] = {}
        self._told_ms: dict[str, int] = {}
        """When it will be said that a node is taken away."""
        self._number = 0

    def offers(self) -> Sequence[Offer]:
        return self._offers

    def request(self, offer: Offer, count: int, now_ms: int) -> None:
        self._go_on(now_ms)
        held = sum(r.offer == offer for r in self._rentals.values())
        if held + count > offer.most:
            raise Denied("no more nodes of the kind", self._retry_s)
        if self._random.randrange(1_000_000) < self._deny_ppm:
            self.denied += 1
            raise Denied("out of capacity", self._retry_s)
        for _ in range(count):
            self._number += 1
            node = f"{self.name}-{offer.offer}-{self._number}"
            self._rentals[node] = Rental(node, offer, False)
            self._ready_ms[node] = now_ms + 1000 * offer.lead_s
            if self._random.randrange(1_000_000) < self._interrupt_ppm:
                after_ms = self._random.randrange(1000 * offer.term_s)
                self._told_ms[node] = self._ready_ms[node] + after_ms

    def held(self, now_ms: int) -> Sequence[Rental]:
        self._go_on(now_ms)
        return list(self._rentals.values())

    def release(self, node: str, now_ms: int) -> None:
        self._go_on(now_ms)
        self._end(node)

    def next_ms(self) -> int | None:
        waiting = [self._ready_ms[n] for n, r in self._rentals.items() if not r.ready]
        ready = [r for r in self._rentals.values() if r.ready]
        ends = [r.gone_ms or r.paid_until_ms for r in ready]
        told = [at_ms for n, at_ms in self._told_ms.items() if not self._rentals[n].gone_ms]
        return min([*waiting, *ends, *told], default=None)

    def _go_on(self, now_ms: int) -> None:
        """All that has happened by now, node by node."""
        for node in list(self._rentals):
            while self._step(node, now_ms):
                pass

    def _step(self, node: str, now_ms: int) -> bool:
        rental = self._rentals.get(node)
        if rental is None:
            return False
        if not rental.ready:
            ready_ms = self._ready_ms[node]
            if ready_ms > now_ms:
                return False
            self._pay(msgspec.structs.replace(rental, ready=True, paid_until_ms=ready_ms))
            return True
        told_ms = self._told_ms.get(node)
        if told_ms is not None and not rental.gone_ms and told_ms <= now_ms:
            self.interrupted += 1
            gone_ms = told_ms + self._notice_ms
            self._rentals[node] = msgspec.structs.replace(rental, gone_ms=gone_ms)
            return True
        if rental.gone_ms and rental.gone_ms <= now_ms:
            self._end(node)
            return False
        if rental.paid_until_ms <= now_ms:
            if rental.offer.renews:
                self._pay(rental)
                return True
            self._end(node)
        return False

    def _pay(self, rental: Rental) -> None:
        offer = rental.offer
        self.cost_milli += offer.price_milli * offer.slots * offer.term_s // 3600
        paid_until_ms = rental.paid_until_ms + 1000 * offer.term_s
        self._rentals[rental.node] = msgspec.structs.replace(rental, paid_until_ms=paid_until_ms)

    def _end(self, node: str) -> None:
        self._rentals.pop(node, None)
        self._ready_ms.pop(node, None)
        self._told_ms.pop(node, None)
