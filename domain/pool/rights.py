"""Quota of the whole pool without a counter that all share: rights that one region holds at a time.

The rights of a region for an account and a type are

    granted here + all that peers ever sent - all that was ever sent to peers

Each sum is written by its donor alone and only grows, so that of two messages the larger one is the
newer: to hear one twice, or late, changes nothing. What is on its way can be spent by nobody.
So Σ used <= Σ rights <= Σ granted, whoever cannot reach whom (a bounded counter: Balegas et al.).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from domain.commands import RequestRights, SendRights, SetQuota
from domain.pool.commands import GrantRights
from domain.pool.facts import RightsGranted, RightsReceived, RightsRequested, RightsSent
from domain.refusals import Refused

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.placement import Blocked
    from domain.pool.specs import Amount
    from domain.shapes import Demand
    from domain.turn import Turn

MAX_GRANTS: Final = 256
ASK_EVERY_MS: Final = 5000
MAX_RIGHTS: Final = 1 << 50


class Rights:
    """Of one account for one accelerator type, in thousandths of slots."""

    __slots__ = (
        "accelerator",
        "account",
        "asked_ms",
        "granted",
        "grants",
        "mark",
        "received",
        "sent",
    )
    kind = "rights"

    def __init__(self, account: str, accelerator: str) -> None:
        self.account = account
        self.accelerator = accelerator
        self.granted = 0
        self.grants: list[str] = []
        self.sent: dict[str, int] = {}
        """To each peer, in all."""
        self.received: dict[str, int] = {}
        self.asked_ms = 0
        self.mark = 0

    @property
    def id(self) -> str:
        return f"{self.account}/{self.accelerator}"

    @property
    def held(self) -> int:
        return self.granted + sum(self.received.values()) - sum(self.sent.values())

    def state(self) -> tuple[object, ...]:
        return (
            self.account,
            self.accelerator,
            self.granted,
            self.grants,
            sorted(self.sent.items()),
            sorted(self.received.items()),
            self.asked_ms,
        )

    @staticmethod
    def load(account: str, accelerator: str, *state: Any) -> Rights:
        rights = Rights(account, accelerator)
        rights.granted, rights.grants, sent, received, rights.asked_ms = state
        rights.sent, rights.received = dict(sent), dict(received)
        return rights


def surplus(cell: Cell, account: str, accelerator: str) -> int:
    """Rights that nothing uses here; 0 if the quota is not the pool's."""
    rights = cell.pool.rights.get((account, accelerator))
    owner = cell.accounts.get(account)
    if rights is None or owner is None:
        return 0
    return max(0, rights.held - owner.uses(accelerator))


# --- decide ---------------------------------------------------------------------------------------


def check_quotas(cell: Cell, command: SetQuota) -> None:
    """A quota of rights stays one: others may be sending rights for it. Raises Refused."""
    for spec in command.quotas:
        limits = (spec.nominal or None, spec.borrowing_limit, spec.lending_limit)
        if spec.rights and any(limit is not None for limit in limits):
            rule = "a quota of rights has nominal 0 and no limits: rights are granted"
            raise Refused("quota_has_rights", "quotas", rule)
    named = {q.accelerator for q in command.quotas if q.rights}
    for account, accelerator in cell.pool.rights:
        if account == command.account and accelerator not in named:
            raise Refused("quota_has_rights", "quotas", f"{accelerator!r} is a quota of rights")


def grant_rights(turn: Turn, command: GrantRights, at: int) -> None:
    rights = _known(turn.cell, command.amount)
    if command.grant in rights.grants:
        raise Refused("grant_exists", "grant", "it was granted here before")
    if len(rights.grants) >= MAX_GRANTS or rights.granted + command.amount.milli > MAX_RIGHTS:
        rule = f"an account has at most {MAX_GRANTS}, of {MAX_RIGHTS} thousandths of slots in all"
        raise Refused("too_many_grants", "grant", rule)
    turn.emit(RightsGranted(at))


def request_rights(turn: Turn, command: RequestRights, at: int) -> None:
    """A donor gives what is asked for, and at most half of its surplus."""
    amount = command.amount
    _known(turn.cell, amount)
    spare = surplus(turn.cell, amount.account, amount.accelerator)
    milli = min(amount.milli, spare // 2)
    if not milli:
        raise Refused("no_surplus", "amount", "all rights here are in use")
    turn.emit(RightsSent(amount.account, amount.accelerator, command.region, milli))


def send_rights(turn: Turn, command: SendRights, at: int) -> None:
    rights = _known(turn.cell, command.total)
    if command.total.milli <= rights.received.get(command.region, 0):
        raise Refused("stale_rights", "total", "no more than was heard of before")
    turn.emit(RightsReceived(at))


def request_for(turn: Turn, demand: Demand, blocked: Blocked) -> None:
    """Ask the peer that seems to have most of what a blocked demand lacks."""
    cell, now_ms = turn.cell, turn.header.now_ms
    account = demand.account.id
    for need in demand.needs:
        rights = cell.pool.rights.get((account, need.accelerator))
        if rights is None or now_ms - rights.asked_ms < ASK_EVERY_MS:
            continue
        lacks = demand.size - demand.account.available(need.accelerator)
        key = (account, need.accelerator)
        donors = [(p.surplus.get(key, 0), p.id) for p in cell.pool.peers.values()]
        most, donor = max(donors, default=(0, ""))
        if lacks > 0 and most:
            turn.emit(RightsRequested(account, need.accelerator, donor, lacks))


def _known(cell: Cell, amount: Amount) -> Rights:
    rights = cell.pool.rights.get((amount.account, amount.accelerator))
    if rights is None:
        raise Refused("no_such_rights", "amount", "the account has no rights for this type")
    return rights


# --- evolve ---------------------------------------------------------------------------------------


def impose(cell: Cell, rights: Rights) -> None:
    """The account's nominal quota is what the region holds."""
    cell.touch(rights)
    account = cell.accounts[rights.account]
    account.rights[rights.accelerator] = rights.held
    account.take_effect(cell.now_ms)
    cell.touch(account)
    cell.rebuild_quota()


def apply_quotas(cell: Cell, command: SetQuota) -> None:
    for spec in command.quotas:
        if spec.rights:
            key = (command.account, spec.accelerator)
            rights = cell.pool.rights.get(key)
            if rights is None:
                rights = cell.pool.rights[key] = Rights(*key)
            impose(cell, rights)


def apply_granted(cell: Cell, fact: RightsGranted) -> None:
    command = cell.command(fact.command, GrantRights)
    rights = cell.pool.rights[command.amount.account, command.amount.accelerator]
    rights.grants.append(command.grant)
    rights.granted += command.amount.milli
    impose(cell, rights)


def apply_requested(cell: Cell, fact: RightsRequested) -> None:
    rights = cell.pool.rights[fact.account, fact.accelerator]
    rights.asked_ms = cell.now_ms
    peer = cell.pool.peers[fact.to]
    key = (fact.account, fact.accelerator)
    peer.surplus[key] = max(0, peer.surplus.get(key, 0) - fact.milli)
    cell.touch(peer)
    cell.touch(rights)


def apply_sent(cell: Cell, fact: RightsSent) -> None:
    give(cell, cell.pool.rights[fact.account, fact.accelerator], fact.to, fact.milli)


def give(cell: Cell, rights: Rights, to: str, milli: int) -> int:
    """All that was ever sent to the peer, after this."""
    rights.sent[to] = rights.sent.get(to, 0) + milli
    impose(cell, rights)
    return rights.sent[to]


def apply_received(cell: Cell, fact: RightsReceived) -> None:
    command = cell.command(fact.command, SendRights)
    cell.pool.heard(cell, command)
    merge(cell, command.region, command.total)


def merge(cell: Cell, donor: str, total: Amount) -> None:
    """Take note of all that a donor ever sent."""
    rights = cell.pool.rights.get((total.account, total.accelerator))
    if rights is not None and total.milli > rights.received.get(donor, 0):
        rights.received[donor] = total.milli
        impose(cell, rights)
