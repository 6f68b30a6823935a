"""The quota algebra beside its definition, computed by brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.commands import SetQuota
from domain.quota import UNLIMITED, Account, rebuild
from domain.specs import Quota

TYPE = "h100"
limits = st.one_of(st.none(), st.integers(0, 20))
entries = st.tuples(st.integers(0, 20), limits, limits)


@st.composite
def trees(draw: st.DrawFn) -> list[Account]:
    """Accounts of a random tree; the first is its root."""
    accounts: list[Account] = []
    for n in range(draw(st.integers(1, 7))):
        nominal, borrowing, lending = draw(entries)
        parent = draw(st.sampled_from(accounts)) if accounts else None
        quota = Quota(
            accelerator=TYPE, nominal=nominal, borrowing_limit=borrowing, lending_limit=lending
        )
        account = Account(f"a{n}")
        account.set(SetQuota(account=account.id, quotas=(quota,)), parent)
        accounts.append(account)
    rebuild(accounts)
    return accounts


def subtree(account: Account) -> int:
    return account.nominal[TYPE] + sum(subtree(c) - local(c) for c in account.children.values())


def local(account: Account) -> int:
    return max(0, subtree(account) - account.lending_limit.get(TYPE, UNLIMITED))


def usage(account: Account) -> int:
    over = sum(max(0, usage(c) - local(c)) for c in account.children.values())
    return account.own.get(TYPE, 0) + over


def available(account: Account) -> int:
    if account.parent is None:
        return subtree(account) - usage(account)
    stored = subtree(account) - local(account)
    in_parent = stored - max(0, usage(account) - local(account))
    limit = account.borrowing_limit.get(TYPE, UNLIMITED)
    return max(0, local(account) - usage(account)) + min(
        available(account.parent), in_parent + limit
    )


@given(trees(), st.lists(st.tuples(st.integers(0, 6), st.integers(-8, 8)), max_size=20))
def test_incremental_equals_definition(
    accounts: list[Account], charges: list[tuple[int, int]]
) -> None:
    for n, amount in charges:
        account = accounts[n % len(accounts)]
        amount = max(amount, -account.own.get(TYPE, 0))
        account.charge(TYPE, amount)
        for one in accounts:
            assert one.usage.get(TYPE, 0) == usage(one)
            assert one.subtree[TYPE] == subtree(one)
            assert one.available(TYPE) == available(one)
    before = [dict(a.usage) for a in accounts]
    rebuild(accounts)
    assert [{t: u for t, u in a.usage.items() if u} for a in accounts] == [
        {t: u for t, u in b.items() if u} for b in before
    ]


@given(trees(), st.data())
def test_what_is_available_can_be_used_and_no_more(
    accounts: list[Account], data: st.DataObject
) -> None:
    """Charging exactly what is available leaves nobody over; one more does."""
    for _ in range(4):
        account = data.draw(st.sampled_from(accounts))
        room = account.available(TYPE)
        assert room >= 0
        account.charge(TYPE, data.draw(st.integers(0, room)))
        assert all(a.available(TYPE) >= 0 for a in accounts if a.own.get(TYPE))
    assert account.ceiling(TYPE) >= account.usage.get(TYPE, 0) or account.children


@given(trees())
def test_lent_is_no_more_than_idle_and_no_more_than_borrowed(accounts: list[Account]) -> None:
    for account in accounts:
        account.charge(TYPE, max(0, account.available(TYPE)))
    for account in accounts:
        lent = account.lent(TYPE)
        assert 0 <= lent <= max(0, account.subtree[TYPE] - account.usage.get(TYPE, 0))
    for parent in accounts:
        kin = list(parent.children.values())
        assert sum(k.lent(TYPE) for k in kin) <= sum(k.borrowed(TYPE) for k in kin)
