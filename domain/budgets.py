"""Budgets: slot-seconds that an account's queues may use in a period, beside the rates of quota.

Periods are multiples of their length. When a budget is used up, nothing more starts on it until the
next period, and what runs is no longer within nominal quota: it goes on as a borrower's does, and
whoever needs the slots may reclaim them. Amounts are thousandths of slots (or units of a group) x
milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain import promises
from domain.specs import Budget as Spec

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.quota import Account


class Budget:
    """One budget of an account, and what of it was spent in the period."""

    __slots__ = (
        "_spent",
        "exhausted",
        "limit",
        "period_ms",
        "rate",
        "resource",
        "since_ms",
        "spec",
    )

    def __init__(self, spec: Spec, account: Account, now_ms: int) -> None:
        self.spec = spec
        self.price(account)
        self.period_ms = 1000 * spec.period_s
        self.rate = account.own.get(self.resource, 0)
        """Thousandths of slots (or units) in use since `since_ms`."""
        self.since_ms = now_ms
        self._spent = 0
        self.exhausted = False
        """As found when the round was opened."""

    def price(self, account: Account) -> None:
        """The exchange rates are others; what was spent counts as it was."""
        self.resource, rate = account.priced(self.spec.accelerator)
        self.limit = self.spec.slot_s * rate * 1000

    def spent(self, now_ms: int) -> int:
        """In the period of that moment, which is not before the last change."""
        begin_ms = now_ms - now_ms % self.period_ms
        if begin_ms > self.since_ms:
            return self.rate * (now_ms - begin_ms)
        return self._spent + self.rate * (now_ms - self.since_ms)

    def settle(self, rate: int, now_ms: int) -> None:
        """From now on so much is in use."""
        if rate != self.rate:
            self._spent = self.spent(now_ms)
            self.since_ms, self.rate = now_ms, rate

    def next_ms(self, now_ms: int) -> int | None:
        """When it is used up, or the next period gives anew what is used up now."""
        end_ms = now_ms - now_ms % self.period_ms + self.period_ms
        if self.exhausted:
            return end_ms
        if not self.rate:
            return None
        left = self.limit - self.spent(now_ms)
        return min(end_ms, now_ms + max(1, -(-left // self.rate)))

    def state(self) -> tuple[object, ...]:
        # As text: over long periods these outgrow the 64 bits of the packed form.
        return (self.spec.model_dump_json(exclude_defaults=True), self.since_ms, str(self._spent))

    def load(self, since_ms: int, spent: str) -> None:
        self.since_ms, self._spent = since_ms, int(spent)


def make(account: Account, specs: tuple[Spec, ...], now_ms: int) -> list[Budget]:
    """The budgets that a command sets; one that is as it was goes on."""
    kept = {b.spec: b for b in account.budgets}
    return [kept.get(s) or Budget(s, account, now_ms) for s in specs]


def look(cell: Cell) -> None:
    """At the begin of a round: which budgets are used up."""
    changed = False
    for account in cell.budgeted:
        for budget in account.budgets:
            exhausted = budget.spent(cell.now_ms) >= budget.limit
            changed = changed or exhausted != budget.exhausted
            budget.exhausted = exhausted
        account.exhausted = [b.resource for b in account.budgets if b.exhausted]
    if changed:
        promises.reconsider(cell)


def settle(account: Account, now_ms: int) -> None:
    """At the end of a round that changed what the account uses."""
    for budget in account.budgets:
        budget.settle(account.own.get(budget.resource, 0), now_ms)


def next_ms(cell: Cell) -> int | None:
    moments = (b.next_ms(cell.now_ms) for a in cell.budgeted for b in a.budgets)
    return min((m for m in moments if m is not None), default=None)


def load(account: Account, states: list[Any], now_ms: int) -> None:
    """The budgets of a snapshot, once what the account uses is known."""
    account.budgets = []
    for spec, since_ms, spent in states:
        budget = Budget(Spec.model_validate_json(spec), account, now_ms)
        budget.load(since_ms, spent)
        account.budgets.append(budget)
