"""Accounts, queues, and the algebra of quota: nominal, borrowing and lending limits in a tree.

The algebra is that of Kueue's cohorts. For each account and accelerator type, in thousandths of a
slot:

    subtree = nominal + sum over children (subtree - local)      what the account's tree brings
    local   = max(0, subtree - lending_limit)                    what it never lends
    usage   = own + sum over children max(0, usage - local)      what reaches this account
    available = max(0, local - usage)
              + min(available(parent), subtree - local - max(0, usage - local) + borrowing_limit)

At the root, available = subtree - usage. It is negative while more is used than the quota allows,
which follows only from a quota that was lowered, or whose window is over.

The algebra is of resources: a resource is an accelerator type, or a group of types of which each
slot costs its rate. Callers name types and count their slots; what they ask and hear is converted
here: what is used is rounded up, what is available down, so that rounding exceeds no quota.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from domain.commands import SetQuota
from domain.specs import MAX_MS, PolicyParameters
from domain.specs import Quota as Entry

if TYPE_CHECKING:
    from domain.budgets import Budget

MILLI: Final = 1000
UNLIMITED: Final = 1 << 60


Rates = dict[str, tuple[str, int]]
"""By accelerator type that is in a group: the group, and the rate in thousandths."""


def rates_of(policy: PolicyParameters) -> Rates:
    return {m.accelerator: (g.group, m.rate_milli) for g in policy.groups for m in g.members}


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
    """A node of the account tree. All amounts are in thousandths of slots, by resource."""

    __slots__ = (
        "_entries_json",
        "_ruled_limits",
        "asked_limits",
        "borrowing_limit",
        "budgets",
        "children",
        "entries",
        "exhausted",
        "id",
        "lending_limit",
        "mark",
        "nominal",
        "own",
        "parent",
        "queues",
        "rates",
        "rights",
        "subtree",
        "usage",
        "weight",
    )
    kind = "account"

    def __init__(self, id_: str, rates: Rates | None = None) -> None:
        self.id = id_
        self.rates: Rates = {} if rates is None else rates
        """Of the cell: shared by all of its accounts."""
        self.entries: tuple[Entry, ...] = ()
        self._entries_json: list[str] = []
        self.budgets: list[Budget] = []
        self.exhausted: list[str] = []
        """Resources whose budget is used up, as found when the round was opened."""
        self.rights: dict[str, int] = {}
        """By accelerator type whose quota is the pool's: what the region holds."""
        self.parent: Account | None = None
        self.children: dict[str, Account] = {}
        self.weight = 1000
        self.nominal: dict[str, int] = {}
        self.borrowing_limit: dict[str, int] = {}
        self.lending_limit: dict[str, int] = {}
        self.queues: dict[str, Queue] = {}
        self.asked_limits: tuple[dict[str, int], dict[str, int]] = ({}, {})
        """Borrowing and lending limits as they were set; rules may set others for a time."""
        self._ruled_limits: tuple[dict[str, int], dict[str, int]] = ({}, {})
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
            self._entries_json,
            [b.state() for b in self.budgets],
            sorted(self.rights.items()),
            sorted(self.nominal.items()),
            *(sorted(limits.items()) for limits in self.asked_limits),
            sorted((t, u) for t, u in self.own.items() if u),
        )

    def set(self, command: SetQuota, parent: Account | None, now_ms: int = 0) -> None:
        if self.parent is not None:
            del self.parent.children[self.id]
        self.parent = parent
        if parent is not None:
            parent.children[self.id] = self
        self.weight = command.weight
        self.enter(command.quotas, now_ms)

    def enter(self, entries: tuple[Entry, ...], now_ms: int) -> None:
        self.entries = entries
        self._entries_json = [e.model_dump_json(exclude_defaults=True) for e in entries]
        self.take_effect(now_ms)

    def take_effect(self, now_ms: int) -> bool:
        """Count the entries whose windows are on; True if that changed anything."""
        before = (self.nominal, self.asked_limits)
        entries = [e for e in self.entries if e.from_ms <= now_ms < e.until_ms]
        self.nominal = {}
        for entry in entries:
            resource, rate = self.priced(entry.accelerator)
            amount = entry.nominal * rate
            if entry.rights:
                amount = cost(self.rights.get(entry.accelerator, 0), rate)
            self.nominal[resource] = self.nominal.get(resource, 0) + amount
        self.asked_limits = (
            self._limits([(e, 0 if e.rights else e.borrowing_limit) for e in entries]),
            self._limits([(e, 0 if e.rights else e.lending_limit) for e in entries]),
        )
        self._limit()
        return before != (self.nominal, self.asked_limits)

    def rule(self, borrowing: dict[str, int], lending: dict[str, int]) -> bool:
        """By resource: limits that rules of policies set; True if any is another than before."""
        before = (self.borrowing_limit, self.lending_limit)
        self._ruled_limits = (borrowing, lending)
        self._limit()
        return before != (self.borrowing_limit, self.lending_limit)

    def _limit(self) -> None:
        (borrowing, lending), (ruled, ruled_lending) = self.asked_limits, self._ruled_limits
        self.borrowing_limit, self.lending_limit = borrowing | ruled, lending | ruled_lending

    def ruleable(self) -> list[str]:
        """Resources whose limits rules may set: what is held by rights is not lent here."""
        held = {self.priced(e.accelerator)[0] for e in self.entries if e.rights}
        return [r for r in sorted(self.nominal) if r not in held]

    def _limits(self, entries: list[tuple[Entry, int | None]]) -> dict[str, int]:
        """By resource: the sum of the limits, unless an entry has none."""
        found: dict[str, int] = {}
        unlimited: list[str] = []
        for entry, limit in entries:
            resource, rate = self.priced(entry.accelerator)
            if limit is None:
                unlimited.append(resource)
            else:
                found[resource] = found.get(resource, 0) + limit * rate
        return {r: n for r, n in found.items() if r not in unlimited}

    def edges(self, now_ms: int) -> list[int]:
        """The moments after now at which the window of an entry begins or ends."""
        moments = [m for e in self.entries for m in (e.from_ms, e.until_ms)]
        return [m for m in moments if now_ms < m < MAX_MS]

    def priced(self, accelerator: str) -> tuple[str, int]:
        """The resource of which a slot of the type takes its quota, and its rate."""
        return self.rates.get(accelerator, (accelerator, MILLI))

    def charged(self, accelerator: str, amount: int) -> int:
        """What slots of the type take of their resource."""
        return cost(amount, self.priced(accelerator)[1])

    def local(self, accelerator: str) -> int:
        """The part of the subtree's quota that the parent never sees."""
        limit = self.lending_limit.get(accelerator, UNLIMITED)
        return max(0, self.subtree.get(accelerator, 0) - limit)

    def brings(self, accelerator: str) -> int:
        """What the account's tree brings of a type, if it is spent on nothing else."""
        resource, rate = self.priced(accelerator)
        return worth(self.subtree.get(resource, 0), rate)

    def uses(self, accelerator: str) -> int:
        """What the account's tree uses of the quota of a type, in slots of that type."""
        resource, rate = self.priced(accelerator)
        return -worth(-self.usage.get(resource, 0), rate)

    def available(self, accelerator: str) -> int:
        """What the account may still take, by quota alone."""
        resource, rate = self.priced(accelerator)
        if rate != MILLI or resource != accelerator:
            return worth(self.available(resource), rate)
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
        resource, rate = self.priced(accelerator)
        if rate != MILLI or resource != accelerator:
            return worth(self.ceiling(resource), rate)
        subtree = self.subtree.get(accelerator, 0)
        if self.parent is None:
            return subtree
        local = self.local(accelerator)
        limit = self.borrowing_limit.get(accelerator, UNLIMITED)
        return local + min(self.parent.ceiling(accelerator), subtree - local + limit)

    def charge(self, accelerator: str, amount: int) -> None:
        """Add to the account's own usage; negative to give back."""
        resource, rate = self.priced(accelerator)
        amount = cost(amount, rate)
        self.own[resource] = self.own.get(resource, 0) + amount
        self._add(resource, amount)

    def _add(self, accelerator: str, amount: int) -> None:
        before = self.usage.get(accelerator, 0)
        self.usage[accelerator] = before + amount
        if self.parent is not None:
            local = self.local(accelerator)
            over = max(0, before + amount - local) - max(0, before - local)
            if over:
                self.parent._add(accelerator, over)

    def within_nominal(self, accelerator: str, amount: int) -> bool:
        """True iff with `amount` more the account stays within what its own tree brings.

        Nothing is within it when a budget is used up.
        """
        resource, rate = self.priced(accelerator)
        if resource in self.exhausted:
            return False
        return self.usage.get(resource, 0) + cost(amount, rate) <= self.subtree.get(resource, 0)

    def borrowed(self, accelerator: str) -> int:
        resource, rate = self.priced(accelerator)
        over = self.usage.get(resource, 0) - self.subtree.get(resource, 0)
        if resource in self.exhausted:
            over = max(over, self.own.get(resource, 0))
        return -worth(-over, rate) if over > 0 else 0

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


def cost(amount: int, rate: int) -> int:
    """Slots of a type in units of its resource; rounded away from 0, so that it can be undone."""
    return -(-amount * rate // MILLI) if amount >= 0 else amount * rate // MILLI


def worth(amount: int, rate: int) -> int:
    """Units of a resource in slots of a type, rounded down."""
    return amount if rate == MILLI else amount * MILLI // rate


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
