"""Attempts in the order in which they lose least, while some of them are taken out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.preemption import preemptible
from domain.preemption.preemptible import Entry, merged, stands
from domain.runs import UNORDERED, Run


def entry_of(since: int, number: int) -> Entry:
    """Of an attempt that stands there; runs are never compared: no two have the same number."""
    return since, number, 0, cast(Run, SimpleNamespace(place=since))


@pytest.mark.parametrize("some", [1, 2, 3, 100])
def test_what_is_not_taken_out_comes_once_and_in_order(some: int) -> None:
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=40),
        st.lists(st.integers(0, 39), max_size=40),
    )
    def check(made: list[tuple[int, int]], gone: list[int]) -> None:
        lists: list[list[Entry]] = [[], [], []]
        for number, (which, since) in enumerate(made):
            lists[which].append(entry_of(since, number))
        for entries in lists:
            entries.sort(key=lambda e: e[:3])
        every = sorted((e for entries in lists for e in entries), key=lambda e: e[:3])
        found: list[Entry] = []
        taken: set[int] = set()
        for entry in merged(lists):
            assert stands(entry)
            found.append(entry)
            number = gone.pop() if gone else -1
            for entries in lists:
                for one in entries:
                    if one[1] == number:
                        one[3].place = UNORDERED
                if number % 3:  # else a gap is left
                    entries[:] = [e for e in entries if stands(e)]
            taken.add(number)
        come = [e[:3] for e in found]
        assert come == sorted(come, reverse=True)
        assert len(set(come)) == len(come)
        left = [e[:3] for e in every if e[1] not in taken]
        assert [place for place in come[::-1] if place[1] not in taken] == left

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preemptible, "SOME", some)
        check()
