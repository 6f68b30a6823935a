"""Capacity outside the own datacenters: what a provider of nodes has to offer, as one contract.

A cloud, a colocation or another scheduler's cluster is an adapter with these four methods. Nodes
that it delivers bring an agent, and once registered they are nodes as any others: types, quota,
policies, promises and books are the same. Their labels name the provider and the price, so that
rules can speak of them; where a lease has an end, the calendar knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Struct
from pydantic import Field

from domain.commands import RegisterNode
from domain.pool.outlook import PRICE
from domain.specs import MAX_S, FabricPath, Model, Name, Seconds

PROVIDER = "provider"
"""Label of a node, beside its price (`domain.pool.outlook.PRICE`)."""


class Offer(Model):
    """Nodes of one kind that a provider would deliver."""

    offer: Name
    accelerator: Name
    kind: Literal["gpu", "npu"] = "gpu"
    slots: Annotated[int, Field(ge=1, le=64)]
    """Of a node."""
    path: FabricPath
    price_milli: Annotated[int, Field(ge=0, le=10**9)]
    """For a slot-hour, in thousandths of the currency."""
    most: Annotated[int, Field(ge=1, le=100_000)]
    """Nodes at once."""
    lead_s: Seconds
    """From a request until they are there."""
    term_s: Annotated[int, Field(ge=60, le=MAX_S)]
    """A node is paid for at least so long, and then for as long again, until it is given back."""
    renews: bool = True
    """False: after its term the node is gone, whatever runs there."""


class Rental(Struct, frozen=True):
    """A node that was asked for, until it is given back or taken away."""

    node: str
    offer: Offer
    ready: bool
    """It is there, and paid for."""
    paid_until_ms: int = 0
    gone_ms: int = 0
    """It is taken away at this time; 0: nobody said so."""


class Denied(Exception):
    """The provider has no such nodes just now."""

    def __init__(self, reason: str, retry_s: int) -> None:
        super().__init__(reason)
        self.retry_s = retry_s


class Provider(Protocol):
    """It remembers what was asked of it: after a restart who rents goes on from `held`."""

    name: str

    def offers(self) -> Sequence[Offer]: ...

    def request(self, offer: Offer, count: int, now_ms: int) -> None:
        """So many more nodes. Raises Denied."""

    def held(self, now_ms: int) -> Sequence[Rental]:
        """All that was asked for and is not over, in the order of the requests."""

    def release(self, node: str, now_ms: int) -> None:
        """The node is given back at once; its paid term is not. One that is gone is passed over."""


def node_of(provider: str, rental: Rental) -> RegisterNode:
    """What the agent of a delivered node registers."""
    offer = rental.offer
    return RegisterNode(
        node=rental.node,
        accelerator=offer.accelerator,
        kind=offer.kind,
        slots=offer.slots,
        path=offer.path,
        labels={PROVIDER: provider, PRICE: str(offer.price_milli)},
        until_ms=0 if offer.renews else rental.paid_until_ms,
    )
