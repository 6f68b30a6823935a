"""Where work goes, beside the same rule read over all nodes and all domains."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.facts import AttemptStarted
from tests.domain.given import Given, job, node, of
from tests.domain.refusals_test import account

PATH = ("region", "cluster", "block", "rack")
Place = tuple[str, ...]

places = st.tuples(st.sampled_from("AB"), st.sampled_from("xy"), st.sampled_from("12"))
machines = st.lists(
    st.tuples(places, st.integers(1, 8), st.integers(0, 8), st.sampled_from("pq")),
    min_size=1,
    max_size=12,
)
"""(cluster, block, rack), slots, how many of them are taken, disk"""


class World:
    """Nodes of which some slots are taken; `free` and `places` by node, in order."""

    def __init__(self, known: list[Any]) -> None:
        self.given = Given()
        quota = specs.Quota(accelerator="h100", nominal=1000)
        self.given.round(account("a", "q").model_copy(update={"quotas": (quota,)}))
        self.free: dict[str, int] = {}
        self.places: dict[str, Place] = {}
        self.disks: dict[str, str] = {}
        for number, ((cluster, block, rack), slots, taken, disk) in enumerate(known):
            name = f"n{number}"
            path = {"cluster": cluster, "block": cluster + block}
            here = node(name, slots=slots, rack=cluster + block + rack, path=path)
            self.given.round(here.model_copy(update={"labels": {"disk": disk}}))
            self.free[name], self.disks[name] = slots, disk
            self.places[name] = tuple(getattr(here.path, p) for p in PATH)
            if 0 < taken <= slots:
                pinned = specs.Placement(require=(specs.Selector(label="node", values=(name,)),))
                self.given.round(job(f"fill-{name}", slots=taken, placement=pinned))
                self.free[name] -= taken

    def start(self, command: c.SubmitJob) -> AttemptStarted | None:
        started: list[AttemptStarted] = of(AttemptStarted, self.given.facts(command))
        return started[0] if started else None

    def reason(self) -> str:
        return next(s.reason for s in self.given.cell.shapes.values() if s.waiting)

    def domains(self, depth: int) -> dict[Place, list[str]]:
        found: dict[Place, list[str]] = {}
        for name, place in self.places.items():
            found.setdefault(place[:depth], []).append(name)
        return found


@settings(deadline=None)
@given(machines, st.integers(1, 8), st.sampled_from((None, "p", "q")))
def test_one_replica_goes_where_it_leaves_least(
    known: list[Any], slots: int, preferred: str | None
) -> None:
    world = World(known)
    prefer = (specs.Preference(label="disk", values=(preferred,)),) if preferred else ()
    started = world.start(job("one", slots=slots, placement=specs.Placement(prefer=prefer)))
    fits = [n for n, free in world.free.items() if free >= slots]
    if not fits:
        assert started is None
        total = sum(world.free.values())
        widest = max(s for _, s, _, _ in known)
        expected = "no_capacity" if total < slots else "fragmented"
        assert world.reason() == (expected if widest >= slots else "never_fits")
        return
    order = list(world.free)
    ranked = sorted(
        fits, key=lambda n: (world.disks[n] != preferred, world.free[n], order.index(n))
    )
    best = ranked[0]
    assert started is not None
    assert started.nodes == [(best, 1, 0, -1)]
    assert started.why is not None
    assert started.why.candidates == len(fits)
    rest = [n for n in ranked if n != best]
    assert started.why.runner_up == (rest[0] if rest else None)


@settings(deadline=None)
@given(
    machines,
    st.integers(1, 4),
    st.integers(2, 6),
    st.sampled_from((None, 1, 2)),
    st.sampled_from(("region", "cluster", "block", "rack")),
)
def test_a_gang_goes_to_the_narrowest_and_fullest_domain_that_holds_it(
    known: list[Any], slots: int, count: int, per_node: int | None, required: str
) -> None:
    world = World(known)
    group = specs.ReplicaGroup(count=count, slots=slots, max_per_node=per_node)
    placement = specs.Placement(required_level=specs.Level(required))
    started = world.start(job("gang", groups=(group,), placement=placement))

    def holds(name: str) -> int:
        return min(world.free[name] // slots, per_node or count)

    for depth in range(4, PATH.index(required), -1):
        domains = world.domains(depth)
        enough = [d for d, names in domains.items() if sum(map(holds, names)) >= count]
        if not enough:
            continue
        best = min(enough, key=lambda d: (sum(world.free[n] for n in domains[d]), d))
        assert started is not None
        used = [name for name, *_ in started.nodes]
        assert set(used) <= set(domains[best]), "in the domain that is left fullest"
        assert sum(n for _, n, _, _ in started.nodes) == count
        if depth == 4:
            fewest = fewest_nodes([holds(n) for n in domains[best]], count)
            assert len(set(used)) == fewest, "on as few nodes as can be"
        return
    assert started is None
    assert world.reason() in ("no_capacity", "fragmented", "never_fits")


def fewest_nodes(held: list[int], count: int) -> int:
    """By trying all sets of nodes."""
    for size in range(1, len(held) + 1):
        if any(sum(some) >= count for some in combinations(held, size)):
            return size
    raise AssertionError("the domain holds it")
