"""Who decides which cells: shares are even, and whoever has a cell keeps it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.election import Claim, share

NAMES = ["a", "b", "c", "d"]


def test_the_first_has_all_and_the_second_takes_its_part() -> None:
    assert share({"m1": Claim(NAMES)}) == {"m1": NAMES}
    shared = share({"m1": Claim(NAMES, NAMES, 1), "m2": Claim(NAMES)})
    assert shared == {"m1": ["a", "b"], "m2": ["c", "d"]}


def test_a_standby_takes_nothing_while_there_is_a_leader() -> None:
    assert share({"m2": Claim(["a"], ["a"], 1), "m1": Claim(["a"])}) == {"m1": [], "m2": ["a"]}


def test_one_that_was_away_does_not_get_back_what_another_has_now() -> None:
    away, now = Claim(["a"], ["a"], 3), Claim(["a"], ["a"], 4)
    assert share({"m1": away, "m2": now}) == {"m1": [], "m2": ["a"]}


def test_what_nobody_has_goes_to_one_that_followed() -> None:
    assert share({"m1": Claim(["a"]), "m2": Claim(["a"], (), 7)}) == {"m1": [], "m2": ["a"]}


claims = st.builds(
    Claim,
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.integers(0, 5),
)


@given(st.dictionaries(st.sampled_from(["m1", "m2", "m3"]), claims, min_size=1))
def test_every_cell_has_one_decider_that_stands_for_it(made: dict[str, Claim]) -> None:
    shared = share(made)
    given_ = [name for names in shared.values() for name in names]
    assert sorted(given_) == sorted({name for claim in made.values() for name in claim.stands_for})
    assert all(name in made[m].stands_for for m, names in shared.items() for name in names)
    assert share(dict(reversed(made.items()))) == shared, "whoever computes it"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(1, 6))
def test_shares_are_even(had_by: list[int], members: int) -> None:
    """Whoever had which: also those who are gone."""
    names = [f"c{n:02}" for n in range(len(had_by))]
    made = {
        f"m{m}": Claim(names, [name for name, by in zip(names, had_by, strict=True) if by == m], 1)
        for m in range(members)
    }
    sizes = [len(s) for s in share(made).values()]
    assert max(sizes) - min(sizes) <= 1
