"""What random histories are made of."""

from __future__ import annotations

from hypothesis import strategies as st

from domain import specs

LEAVES = ("team-a", "team-b", "team-c")
QUEUES = tuple(f"{a}-{n}" for a in LEAVES for n in ("x", "y"))
TYPES = ("h100", "npu")
LIMITS = st.one_of(st.none(), st.integers(0, 12))

quotas = st.builds(
    specs.Quota,
    accelerator=st.sampled_from(TYPES),
    nominal=st.integers(0, 24),
    borrowing_limit=LIMITS,
    lending_limit=LIMITS,
    from_ms=st.sampled_from((0, 0, 0, 1_500_000)),
    until_ms=st.sampled_from((specs.MAX_MS, specs.MAX_MS, specs.MAX_MS, 6_000_000)),
)
groups = st.one_of(
    st.builds(
        specs.ReplicaGroup,
        count=st.integers(1, 4),
        slots=st.sampled_from((1, 2, 4, 8)),
        max_per_node=st.one_of(st.none(), st.just(1)),
    ),
    st.builds(
        specs.ReplicaGroup,
        count=st.just(4),
        slots=st.sampled_from((1, 2, 4)),
        slices=st.sampled_from(
            (
                (specs.Slice(size=2, level=specs.Level.NODE),),
                (specs.Slice(size=2, level=specs.Level.RACK),),
                (
                    specs.Slice(size=4, level=specs.Level.BLOCK),
                    specs.Slice(size=2, level=specs.Level.NODE),
                ),
            )
        ),
    ),
    st.builds(
        specs.ReplicaGroup,
        count=st.integers(2, 4),
        spread=st.builds(
            specs.Spread,
            level=st.sampled_from((specs.Level.NODE, specs.Level.RACK, specs.Level.BLOCK)),
            max_replicas=st.integers(1, 2),
        ),
    ),
    st.builds(
        specs.ReplicaGroup,
        share_milli=st.sampled_from((250, 400, 600)),
        host_cpu_milli=st.sampled_from((0, 4000)),
    ),
    st.builds(
        specs.ReplicaGroup,
        slots=st.sampled_from((0, 1, 2)),
        host_cpu_milli=st.just(6000),
        host_memory_mib=st.sampled_from((0, 2048)),
    ),
)
flavours = st.sampled_from(
    (
        (specs.Flavour(accelerator="h100"),),
        (specs.Flavour(accelerator="npu"),),
        (specs.Flavour(accelerator="h100"), specs.Flavour(accelerator="npu", after_wait_s=900)),
        (specs.Flavour(accelerator="npu"), specs.Flavour(accelerator="h100")),
    )
)
ZONE_A = (specs.Selector(label="zone", values=("a",)),)
RACKS = (specs.Selector(label="rack", values=("k0", "k1")),)
placements = st.one_of(
    st.just(specs.Placement()),
    st.builds(
        specs.Placement,
        required_level=st.sampled_from(tuple(specs.Level)),
        preferred_level=st.one_of(st.none(), st.sampled_from(tuple(specs.Level))),
        require=st.sampled_from(((), ZONE_A, RACKS)),
        forbid=st.sampled_from(((), (specs.Selector(label="cluster", values=("c1",)),))),
        prefer=st.sampled_from(((), (specs.Preference(label="zone", values=("b",), weight=3),))),
    ),
    st.builds(
        specs.Placement,
        affinity=st.tuples(
            st.builds(
                specs.Affinity,
                key=st.sampled_from(("red", "blue")),
                level=st.sampled_from((specs.Level.NODE, specs.Level.RACK)),
                mode=st.sampled_from(("together", "apart")),
            )
        ),
    ),
)
runtimes = st.builds(
    specs.Runtime,
    max_s=st.one_of(st.none(), st.just(5000)),
    restore_s=st.sampled_from((0, 60)),
    grace_s=st.sampled_from((0, 30)),
    estimate_s=st.sampled_from((None, 10, 100, 1000)),
)


deadlines = st.one_of(
    st.none(),
    st.tuples(st.sampled_from((0, 60, 1500, 9000)), st.sampled_from(("soft", "hard"))),
)
"""(seconds from now, hardness)"""

Contention = list[tuple[str, specs.Tier, int, int, int]]
"""(queue, tier, slots, count, seconds until the next one)"""

contention = st.lists(
    st.tuples(
        st.sampled_from(QUEUES),
        st.sampled_from(tuple(specs.Tier)),
        st.sampled_from((1, 4, 8)),
        st.integers(1, 6),
        st.sampled_from((1, 31, 700, 4000)),
    ),
    min_size=2,
    max_size=6,
)
