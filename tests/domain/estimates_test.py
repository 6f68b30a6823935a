"""How long jobs are expected to run: what is counted, what is published, what follows from it."""

from __future__ import annotations

import statistics

from hypothesis import given as given_any
from hypothesis import strategies as st

from domain import commands as c
from domain import estimates, specs
from domain.cell import Cell
from domain.facts import AttemptStarted, EstimateModelPublished, EstimateOf
from tests.domain.given import Given, job, of
from tests.domain.time_test import world

BY_LENGTH = specs.PolicyParameters(order="least_remaining")


def finish(given: Given, name: str, ran_s: int) -> list[EstimateOf]:
    """Let a job run so long; what is published in the round in which it ends."""
    ended = c.ReportAttempt(job=name, attempt=1, state="finished")
    published = of(EstimateModelPublished, given.facts(ended, after_s=ran_s))
    return published[0].entries if published else []


def ran(given: Given, *lengths: int, slots: int = 8, estimate_s: int | None = None) -> None:
    """Jobs of one size, one after the other, on a node of their own."""
    for number, length in enumerate(lengths):
        name = f"{slots}-{number}-{given.offset}"
        given.round(job(name, slots=slots, runtime=specs.Runtime(estimate_s=estimate_s)))
        finish(given, name, length)


def test_buckets_are_in_order_and_hold_their_top() -> None:
    values = [*range(1, 5000), *(1 << n for n in range(13, 40))]
    buckets = [estimates.bucket_of(v) for v in values]
    assert buckets == sorted(buckets)
    assert all(v <= estimates.top_of(b) <= 1.25 * v for v, b in zip(values, buckets, strict=True))


@given_any(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=60), st.integers(1, 999))
def test_a_quantile_is_at_most_a_quarter_above_the_exact_one(
    values: list[int], permille: int
) -> None:
    counts: dict[int, int] = {}
    for value in values:
        bucket = estimates.bucket_of(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    exact = sorted(values)[-(-len(values) * permille // 1000) - 1]
    assert exact <= estimates.quantile(counts, permille) <= max(exact * 1.25, 1)


def test_a_model_is_published_when_the_ends_have_doubled() -> None:
    given = world()
    ends: list[int] = []
    for number in range(1, 70):
        given.round(job(f"j{number}", slots=8))
        if finish(given, f"j{number}", 10):
            ends.append(number)
    assert ends == [16, 32, 64]
    assert given.cell.estimates.version == 3


def test_the_mean_is_drawn_to_that_of_all_and_the_quantile_is_not() -> None:
    given = world()
    ran(given, *([100] * 24), slots=8)
    ran(given, *([1000] * 8), slots=1)
    entry = given.cell.estimates.by_kind
    mean = statistics.mean([100] * 24 + [1000] * 8)
    large, small = entry["q", 4], entry["q", 1]
    assert large.mean_s == int((2400 + 256 * mean) / (24 + 256))
    assert small.mean_s == int((8000 + 256 * mean) / (8 + 256))
    assert 100 <= large.p90_s <= 125
    assert 1000 <= small.p90_s <= 1250
    assert entry["", 0].jobs == 32


def test_what_users_are_usually_off_by_corrects_their_estimates() -> None:
    given = world()
    ran(given, *([200] * 16), estimate_s=100)
    given.round(job("x", slots=8, runtime=specs.Runtime(estimate_s=1000)))
    expected = estimates.expected_s(given.cell, given.cell.jobs["x"])
    assert 2000 <= expected <= 2500


def test_what_has_run_longer_than_expected_has_as_much_before_it() -> None:
    given = world()
    given.round(job("x", slots=8, runtime=specs.Runtime(estimate_s=100)))
    run = given.cell.jobs["x"].run
    assert run is not None
    left = []
    for _ in range(4):
        left.append(estimates.run_left_s(given.cell, run))
        given.round(after_s=60)
    assert left == [100, 40, 120, 180]


def test_without_estimates_the_smallest_job_comes_first() -> None:
    given = world()
    given.round(c.SetPolicy(parameters=BY_LENGTH), job("first", slots=8))
    given.round(job("large", slots=8), job("small", slots=2), job("middle", slots=4))
    facts = given.facts(c.ReportAttempt(job="first", attempt=1, state="finished"))
    assert [f.job for f in of(AttemptStarted, facts)] == ["small", "middle"]


def test_the_model_decides_the_order_also_after_a_restore() -> None:
    given = world()
    ran(given, *([10] * 200), slots=2)
    ran(given, *([10_000] * 200), slots=1)
    given.round(c.SetPolicy(parameters=BY_LENGTH), job("first", slots=8))
    given.round(job("long", slots=1), job("short", slots=2), job("again", slots=8))
    given.cell = Cell.restore(given.cell.snapshot())
    facts = given.facts(c.ReportAttempt(job="first", attempt=1, state="finished"))
    assert [f.job for f in of(AttemptStarted, facts)] == ["short", "long"]
