"""Slices, spreading and affinity, beside all ways to lay replicas out."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import specs
from domain.cell import Cell
from domain.commands import ReportAttempt, SubmitJob
from domain.facts import AttemptStarted
from tests.domain.given import Given, job, node, of
from tests.domain.refusals_test import account

PATH = ("region", "cluster", "block", "rack")
BLOCK, RACK, NODE = specs.Level.BLOCK, specs.Level.RACK, specs.Level.NODE

places = st.tuples(st.sampled_from("xy"), st.sampled_from("12"), st.integers(0, 3))
"""(block, rack, free slots)"""
slices = st.sampled_from(
    (
        (),
        (specs.Slice(size=2, level=NODE),),
        (specs.Slice(size=2, level=RACK),),
        (specs.Slice(size=3, level=RACK),),
        (specs.Slice(size=4, level=BLOCK), specs.Slice(size=2, level=RACK)),
    )
)
spreads = st.none() | st.builds(
    specs.Spread, level=st.sampled_from((BLOCK, RACK, NODE)), max_replicas=st.integers(1, 3)
)


def cell_of(known: list[tuple[str, str, int]]) -> Given:
    made = Given()
    quota = specs.Quota(accelerator="h100", nominal=1000)
    made.round(account("a", "q").model_copy(update={"quotas": (quota,)}))
    for number, (block, rack, slots) in enumerate(known):
        path = {"block": block}
        made.round(node(f"n{number}", slots=slots, rack=block + rack, path=path))
    return made


def domain(cell: Cell, name: str, level: specs.Level) -> tuple[str, ...]:
    path = (*cell.nodes[name].rack.path, name)
    return path[: specs.LEVELS.index(level) + 1]


def obeyed(cell: Cell, group: specs.ReplicaGroup, placed: dict[str, int]) -> bool:
    """True iff so many replicas on these nodes are what the group's rules allow."""
    rules = [(s.level, s.size, 0) for s in group.slices]
    if group.spread is not None:
        rules.append((group.spread.level, 0, group.spread.max_replicas))
    for level, size, most in rules:
        together: dict[tuple[str, ...], int] = {}
        for name, count in placed.items():
            at = domain(cell, name, level)
            together[at] = together.get(at, 0) + count
        if any((size and n % size) or (most and n > most) for n in together.values()):
            return False
    return True


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@example(  # found: one of a pair in each rack, as no more may lie in one
    known=[("x", "1", 3), ("x", "2", 3)],
    count=2,
    slices=(specs.Slice(size=2, level=NODE),),
    spread=specs.Spread(level=RACK, max_replicas=1),
)
@given(
    known=st.lists(places, min_size=1, max_size=5),
    count=st.sampled_from((1, 2, 3, 4, 4, 6)),
    slices=slices,
    spread=spreads,
)
def test_a_gang_starts_iff_there_is_a_way(
    known: list[tuple[str, str, int]],
    count: int,
    slices: tuple[specs.Slice, ...],
    spread: specs.Spread | None,
) -> None:
    if slices and count % slices[0].size:
        count = slices[0].size
    group = specs.ReplicaGroup(count=count, slices=slices, spread=spread)
    made = cell_of(known)
    started = of(AttemptStarted, made.facts(job("j", groups=(group,))))
    ways = (
        dict(zip(made.cell.nodes, counts, strict=True))
        for counts in product(*(range(slots + 1) for _, _, slots in known))
        if sum(counts) == count
    )
    possible = any(obeyed(made.cell, group, way) for way in ways)
    assert bool(started) == possible
    for fact in started:
        placed = {name: n for name, n, _, _ in fact.nodes}
        assert sum(placed.values()) == count
        assert obeyed(made.cell, group, placed)


def affine(name: str, mode: str, level: specs.Level = RACK, key: str = "db") -> SubmitJob:
    rule = specs.Affinity.model_validate({"key": key, "level": level, "mode": mode})
    return job(name, placement=specs.Placement(affinity=(rule,)))


def where(made: Given, command: SubmitJob) -> str | None:
    started = of(AttemptStarted, made.facts(command))
    return started[0].nodes[0][0] if started else None


def test_jobs_of_a_key_lie_apart_until_there_is_no_other_rack() -> None:
    made = cell_of([("x", "1", 8), ("x", "1", 8), ("x", "2", 8)])
    assert where(made, affine("a", "apart")) == "n2", "the rack with the fewest free slots"
    assert where(made, affine("b", "apart")) == "n0"
    assert where(made, affine("c", "apart")) is None
    assert next(s.reason for s in made.cell.shapes.values() if s.waiting) == "rules"
    assert where(made, affine("d", "apart", NODE)) == "n1"
    assert where(made, affine("e", "apart", RACK, "other")) is not None


def test_jobs_of_a_key_lie_together_and_anywhere_once_the_last_has_gone() -> None:
    made = cell_of([("x", "1", 1), ("x", "2", 2)])
    assert where(made, affine("a", "together")) == "n0"
    assert where(made, affine("b", "together")) is None, "its rack is full"
    made.cell = Cell.restore(made.cell.snapshot())
    *_, nodes = made.cell.keyed["db"]
    assert list(nodes.values()) == [1], "it lies on one node"

    facts = made.facts(ReportAttempt(job="a", attempt=1, state="finished"))
    assert of(AttemptStarted, facts)[0].job == "b"
    made.facts(ReportAttempt(job="b", attempt=1, state="finished"))
    assert not made.cell.keyed, "nobody names the key any more"


@pytest.mark.parametrize(
    "wrong",
    [
        (specs.Slice(size=3, level=RACK),),
        (specs.Slice(size=4, level=RACK), specs.Slice(size=2, level=BLOCK)),
        (specs.Slice(size=4, level=BLOCK), specs.Slice(size=3, level=RACK)),
    ],
)
def test_slices_that_do_not_nest_are_refused(wrong: tuple[specs.Slice, ...]) -> None:
    with pytest.raises(ValidationError, match="each slice must divide"):
        specs.ReplicaGroup(count=8, slices=wrong)
