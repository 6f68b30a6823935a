"""Accounts, queues, and the algebra of quota: nominal, borrowing and lending limits in a tree.

The algebra is that of Kueue's cohorts. For each account and accelerator type, in thousandths of a
slot:

    subtree = nominal + sum over children (subtree - local)      what the account's tree brings
    local   = max(0, subtree - lending_limit)                    what it never lends
    usage   = own + sum over children max(0, usage - local)      what reaches this account
    available = max(0, local - usage)
              + min(available(parent), subtree - local - max(0, usage - local) + borrowing_limit)

At the root, available = subtree - usage. It is negative while more is used than the quota allows,
which follows only from a quota that was lowered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from domain.commands import SetQuota

MILLI: Final = 1000
UNLIMITED: Final = 1 << 60


class Queue:
    """A line of jobs that share a place in the fair order."""

    __slots__ = ("account", "id", "index", "mark", "strict", "usage", "waiting", "weight")
    kind = "queue"

    def __init__(self, id_: str, index: int, account: Account, weight: int, strict: bool) -> None:
        self.id = id_
        self.index = index
        self.account = account
        self.weight = weight
        self.strict = strict
        self.usage: dict[str, int] = {}
        """Thousandths of slots in use, by accelerator type."""
        self.waiting = 0
        """Jobs that wait, backed off or not."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.index, self.account.id, self.weight, self.strict)


class Account:
    """A node of the account tree. All amounts are in thousandths of slots, by accelerator type."""

    __slots__ = (
        "asked_limits",
        "borrowing_limit",
        "children",
        "id",
        "lending_limit",
        "mark",
        "nominal",
        "own",
        "parent",
        "queues",
        "subtree",
        "usage",
        "weight",
    )
    kind = "account"

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.parent: Account | None = None
        self.children: dict[str, Account] = {}
        self.weight = 1000
        self.nominal: dict[str, int] = {}
        self.borrowing_limit: dict[str, int] = {}
        self.lending_limit: dict[str, int] = {}
        self.queues: dict[str, Queue] = {}
        self.asked_limits: tuple[dict[str, int], dict[str, int]] = ({}, {})
        """Borrowing and lending limits as they were set; rules may set others for a time."""
        self.own: dict[str, int] = {}
        """Used by the account's own queues."""
        self.usage: dict[str, int] = {}
        self.subtree: dict[str, int] = {}
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.parent.id if self.parent else None,
            self.weight,
            sorted(self.nominal.items()),
            *(sorted(limits.items()) for limits in self.asked_limits),
            sorted((t, u) for t, u in self.own.items() if u),
        )

    def set(self, command: SetQuota, parent: Account | None) -> None:
        if self.parent is not None:
            del self.parent.children[self.id]
        self.parent = parent
        if parent is not None:
            parent.children[self.id] = self
        self.weight = command.weight
        self.nominal = {q.accelerator: q.nominal * MILLI for q in command.quotas}
        borrowing = {
            q.accelerator: q.borrowing_limit * MILLI
            for q in command.quotas
            if q.borrowing_limit is not None
        } | {q.accelerator: 0 for q in command.quotas if q.rights}
        lending = {
            q.accelerator: q.lending_limit * MILLI
            for q in command.quotas
            if q.lending_limit is not None
        } | {q.accelerator: 0 for q in command.quotas if q.rights}
        self.asked_limits = (borrowing, lending)
        self.unlimit()

    def unlimit(self) -> None:
        """The limits are those that were set: no rule of a policy sets others."""
        self.borrowing_limit, self.lending_limit = (dict(limits) for limits in self.asked_limits)

    def local(self, accelerator: str) -> int:
        """The part of the subtree's quota that the parent never sees."""
        limit = self.lending_limit.get(accelerator, UNLIMITED)
        return max(0, self.subtree.get(accelerator, 0) - limit)

    def available(self, accelerator: str) -> int:
        """What the account may still take, by quota alone."""
        usage = self.usage.get(accelerator, 0)
        subtree = self.subtree.get(accelerator, 0)
        if self.parent is None:
            return subtree - usage
        local = self.local(accelerator)
        limit = self.borrowing_limit.get(accelerator, UNLIMITED)
        in_parent = subtree - local - max(0, usage - local)
        return max(0, local - usage) + min(self.parent.available(accelerator), in_parent + limit)

    def ceiling(self, accelerator: str) -> int:
        """What the account could take if nobody used anything: more is refused at the door."""
        subtree = self.subtree.get(accelerator, 0)
        if self.parent is None:
            return subtree
        local = self.local(accelerator)
        limit = self.borrowing_limit.get(accelerator, UNLIMITED)
        return local + min(self.parent.ceiling(accelerator), subtree - local + limit)

    def charge(self, accelerator: str, amount: int) -> None:
        """Add to the account's own usage; negative to give back."""
        self.own[accelerator] = self.own.get(accelerator, 0) + amount
        self._add(accelerator, amount)

    def _add(self, accelerator: str, amount: int) -> None:
        before = self.usage.get(accelerator, 0)
        self.usage[accelerator] = before + amount
        if self.parent is not None:
            local = self.local(accelerator)
            over = max(0, before + amount - local) - max(0, before - local)
            if over:
                self.parent._add(accelerator, over)

    def within_nominal(self, accelerator: str, amount: int) -> bool:
        """True iff with `amount` more the account stays within what its own tree brings."""
        return self.usage.get(accelerator, 0) + amount <= self.subtree.get(accelerator, 0)

    def borrowed(self, accelerator: str) -> int:
        return max(0, self.usage.get(accelerator, 0) - self.subtree.get(accelerator, 0))

    def lent(self, accelerator: str) -> int:
        """What others use of this account's quota: its borrowers' part, as far as it is idle.

        A parent cannot tell whose idle quota a borrower took; it is told by idle share.
        """
        parent = self.parent
        if parent is None:
            return 0
        idle = _lendable(self, accelerator)
        if not idle:
            return 0
        siblings = parent.children.values()
        taken = sum(s.borrowed(accelerator) for s in siblings)
        taken = max(0, taken - parent.nominal.get(accelerator, 0))
        offered = sum(_lendable(s, accelerator) for s in siblings)
        return min(idle, taken * idle // offered)


def _lendable(account: Account, accelerator: str) -> int:
    """Quota that is idle and may be lent."""
    idle = account.subtree.get(accelerator, 0) - account.usage.get(accelerator, 0)
    return max(0, min(idle, account.lending_limit.get(accelerator, UNLIMITED)))


def rebuild(accounts: Iterable[Account]) -> None:
    """Recompute subtree and usage of all accounts after the tree or its limits changed."""
    everyone = list(accounts)
    for account in everyone:
        account.subtree = {}
        account.usage = {}
    for root in everyone:
        if root.parent is None:
            _rebuild(root)


def _rebuild(account: Account) -> None:
    subtree, usage = dict(account.nominal), dict(account.own)
    for child in account.children.values():
        _rebuild(child)
        for accelerator in sorted(child.subtree.keys() | child.usage.keys()):
            local = child.local(accelerator)
            brings = child.subtree.get(accelerator, 0) - local
            subtree[accelerator] = subtree.get(accelerator, 0) + brings
            over = max(0, child.usage.get(accelerator, 0) - local)
            usage[accelerator] = usage.get(accelerator, 0) + over
    account.subtree, account.usage = subtree, usage


def depth(account: Account | None) -> int:
    levels = 0
    while account is not None:
        levels += 1
        account = account.parent
    return levels
