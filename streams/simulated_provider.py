"""A provider without machines: it takes time, denies, takes nodes away, and wants to be paid."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from streams.providers import Denied, Offer, Rental


class _Machine(Struct):
    """A node, from its request to its end."""

    offer: Offer
    ready_ms: int
    told_ms: int | None
    """When it will be said that it is taken away."""
    paid_until_ms: int = 0
    gone_ms: int = 0


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
        self._machines: dict[str, _Machine] = {}
        self._number = 0

    def offers(self) -> Sequence[Offer]:
        return self._offers

    def request(self, offer: Offer, count: int, now_ms: int) -> None:
        self._go_on(now_ms)
        held = sum(m.offer == offer for m in self._machines.values())
        if held + count > offer.most:
            raise Denied("no more nodes of the kind", self._retry_s)
        if self._random.randrange(1_000_000) < self._deny_ppm:
            self.denied += 1
            raise Denied("out of capacity", self._retry_s)
        for _ in range(count):
            self._number += 1
            ready_ms, told_ms = now_ms + 1000 * offer.lead_s, None
            if self._random.randrange(1_000_000) < self._interrupt_ppm:
                told_ms = ready_ms + self._random.randrange(1000 * offer.term_s)
            node = f"{self.name}-{offer.offer}-{self._number}"
            self._machines[node] = _Machine(offer, ready_ms, told_ms)

    def held(self, now_ms: int) -> Sequence[Rental]:
        self._go_on(now_ms)
        return [
            Rental(node, m.offer, m.ready_ms <= now_ms, m.paid_until_ms, m.gone_ms)
            for node, m in self._machines.items()
        ]

    def release(self, node: str, now_ms: int) -> None:
        self._go_on(now_ms)
        self._machines.pop(node, None)

    def _go_on(self, now_ms: int) -> None:
        """All that has happened by now, node by node."""
        self._machines = {n: m for n, m in self._machines.items() if self._stays(m, now_ms)}

    def _stays(self, machine: _Machine, now_ms: int) -> bool:
        if machine.ready_ms > now_ms:
            return True
        if not machine.paid_until_ms:
            self._pay(machine, machine.ready_ms)
        if machine.told_ms is not None and machine.told_ms <= now_ms and not machine.gone_ms:
            self.interrupted += 1
            machine.gone_ms = machine.told_ms + self._notice_ms
        if 0 < machine.gone_ms <= now_ms:
            return False
        while machine.paid_until_ms <= now_ms:
            if not machine.offer.renews:
                return False
            self._pay(machine, machine.paid_until_ms)
        return True

    def _pay(self, machine: _Machine, from_ms: int) -> None:
        """One term."""
        offer = machine.offer
        self.cost_milli += offer.price_milli * offer.slots * offer.term_s // 3600
        machine.paid_until_ms = from_ms + 1000 * offer.term_s
