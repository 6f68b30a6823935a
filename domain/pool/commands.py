"""What operators tell a region of its pool."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.pool.specs import Amount, HandoffRules, PeerSpec
from domain.specs import Model, Name


class SetPeers(Model):
    """Make the cell a region of the pool, or replace what it knows of its peers."""

    type: Literal["SetPeers"] = "SetPeers"
    region: Name
    epoch: Annotated[int, Field(ge=1, le=999_999_999)] = 1
    """Higher than of any ledger that the region had before this one."""
    peers: Annotated[tuple[PeerSpec, ...], Field(max_length=64)] = ()
    rules: HandoffRules = HandoffRules()
    datasets: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    """Those that this region holds."""

    @model_validator(mode="after")
    def _regions_differ(self) -> Self:
        names = [self.region, *(p.region for p in self.peers)]
        if len(set(names)) != len(names):
            raise ValueError("regions must have different names")
        return self


class GrantRights(Model):
    """Let rights of a pool's quota come into being; each grant at one region, once."""

    type: Literal["GrantRights"] = "GrantRights"
    grant: Name
    amount: Amount


class FenceRegion(Model):
    """An operator holds a peer for lost: its jobs that may fail over are brought back here.

    With more than two regions a majority of them says so by itself (`HandoffRules.lost_s`). Never
    say it of two regions to each other: each would end the other's jobs without being asked.
    """

    type: Literal["FenceRegion"] = "FenceRegion"
    region: Name
