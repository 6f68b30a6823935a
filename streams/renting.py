"""Who rents: what waits too long for room gets nodes of providers, and idle ones are given back.

It looks at the cell as the ledger has it and at what providers hold, and keeps nothing but how long
a provider that denied is left alone: after a crash it goes on from both. What it asks of the cell
are commands like an operator's, in the ledger with their reasons. What it asks of providers follows
from jobs that wait; what is on its way counts, so that nothing is asked for twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

from pydantic import Field

from domain.cell import Cell
from domain.commands import Command, DrainNode, RemoveNode
from domain.nodes import Node
from domain.quota import Account
from domain.shapes import Shape
from domain.specs import Model, Name, Seconds
from streams.providers import PROVIDER, Denied, Offer, Provider, Rental

MANY: Final = 10**15
ROOM: Final = ("no_capacity", "fragmented", "no_matching_nodes", "never_fits")
"""Reasons to wait that more nodes would end; quota, budgets and rules of policies are others."""


class Rules(Model):
    """When nodes are rented."""

    patience_s: Seconds = 600
    """A job waits for room so long before anything is rented for it."""
    most_milli_an_hour: Annotated[int, Field(ge=0, le=MANY)] = MANY
    """All that is rented may cost so much an hour, in thousandths of the currency."""
    price_most_milli: Annotated[int, Field(ge=0, le=MANY)] = MANY
    """Of a slot-hour."""
    accounts: tuple[Name, ...] = ()
    """Only for jobs of these accounts and of those below them; none named: of all."""


class Renter:
    def __init__(self, providers: Sequence[Provider], rules: Rules) -> None:
        self._providers = providers
        self._rules = rules
        self._shunned_ms: dict[tuple[str, str], int] = {}
        """By provider and offer that was denied: when it is asked again."""

    def step(self, cell: Cell, now_ms: int) -> list[Command]:
        """Ask providers for what is missing, give back what is not needed; for the cell: drain what
        will be taken away, remove what is gone."""
        held = {p.name: list(p.held(now_ms)) for p in self._providers}
        commands: list[Command] = []
        for provider in self._providers:
            commands += self._leave(cell, provider, held[provider.name], now_ms)
        self._rent(cell, held, now_ms)
        return commands

    def _leave(
        self, cell: Cell, provider: Provider, held: list[Rental], now_ms: int
    ) -> Iterator[Command]:
        rented = {r.node: r for r in held}
        for node in _nodes_of(cell, provider.name):
            rental = rented.get(node.id)
            if rental is None:
                yield RemoveNode(node=node.id, reason="its provider has taken it away")
            elif rental.gone_ms and not node.draining:
                yield DrainNode(node=node.id, reason="its provider takes it away")
            elif _ends(rental, now_ms) and not node.runs and not node.held:
                provider.release(node.id, now_ms)
                held.remove(rental)
                yield RemoveNode(node=node.id, reason="nothing runs there, its term is over")

    def _rent(self, cell: Cell, held: dict[str, list[Rental]], now_ms: int) -> None:
        coming = {
            rental.node: rental.offer
            for rentals in held.values()
            for rental in rentals
            if rental.node not in cell.nodes and not rental.gone_ms
        }
        rate = sum(_rate(r.offer) for rentals in held.values() for r in rentals)
        for shape in self._waiting(cell, now_ms):
            left = shape.waiting
            for provider, offer in self._usable(shape, now_ms):
                nodes = _nodes_for(shape, offer)
                on_the_way = [n for n, o in coming.items() if o == offer]
                served = min(left, len(on_the_way) // nodes)
                for node in on_the_way[: served * nodes]:
                    del coming[node]
                left -= served
                had = sum(r.offer == offer for r in held[provider.name])
                money = (self._rules.most_milli_an_hour - rate) // max(1, _rate(offer))
                jobs = min(left, (offer.most - had) // nodes, money // nodes)
                if jobs <= 0:
                    continue
                try:
                    provider.request(offer, jobs * nodes, now_ms)
                except Denied as denied:
                    again_ms = now_ms + 1000 * denied.retry_s
                    self._shunned_ms[provider.name, offer.offer] = again_ms
                    continue
                held[provider.name] += [Rental("", offer, False)] * (jobs * nodes)
                rate += jobs * nodes * _rate(offer)
                left -= jobs

    def _waiting(self, cell: Cell, now_ms: int) -> list[Shape]:
        """Shapes whose first job has waited for room for long enough, the longest wait first."""
        until_ms = now_ms - 1000 * self._rules.patience_s
        found = []
        for shape in cell.shapes.values():
            head = shape.head() if shape.reason in ROOM else None
            if head is not None and head.seniority_ms <= until_ms and self._may(shape):
                found.append((head.seniority_ms, shape.id, shape))
        return [shape for *_, shape in sorted(found, key=lambda f: f[:2])]

    def _may(self, shape: Shape) -> bool:
        account: Account | None = shape.queue.account
        while account is not None and self._rules.accounts:
            if account.id in self._rules.accounts:
                return True
            account = account.parent
        return not self._rules.accounts

    def _usable(self, shape: Shape, now_ms: int) -> list[tuple[Provider, Offer]]:
        """Offers of types that the shape accepts and that its replicas fit, the cheapest first."""
        types = {f.accelerator for f in shape.spec.flavours}
        found = [
            (offer.price_milli, number, offer.offer, provider, offer)
            for number, provider in enumerate(self._providers)
            for offer in provider.offers()
            if offer.accelerator in types
            and offer.price_milli <= self._rules.price_most_milli
            and self._shunned_ms.get((provider.name, offer.offer), 0) <= now_ms
            and all(g.slots <= offer.slots for g in shape.spec.groups)
        ]
        return [(p, o) for *_, p, o in sorted(found, key=lambda f: f[:3])]


def _nodes_of(cell: Cell, provider: str) -> Iterable[Node]:
    return [n for n in cell.nodes.values() if n.spec.labels.get(PROVIDER) == provider]


def _ends(rental: Rental, now_ms: int) -> bool:
    """The last tenth of a paid term: soon it is paid for anew."""
    offer = rental.offer
    return offer.renews and rental.paid_until_ms - now_ms <= 100 * offer.term_s


def _rate(offer: Offer) -> int:
    return offer.price_milli * offer.slots


def _nodes_for(shape: Shape, offer: Offer) -> int:
    """Whole nodes that a job of the shape takes; replicas of one group share a node."""
    groups = [g for g in shape.spec.groups if g.slots]
    return max(1, sum(-(-g.count // (offer.slots // g.slots)) for g in groups))
