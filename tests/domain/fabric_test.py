"""Counts that are kept up to date beside a recount; choices beside brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain import commands as c
from domain import specs
from domain.fabric import Domain
from domain.nodes import Node
from domain.placement import nodes_of
from tests.domain.given import Given, job, node

changes = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(("add", "cordon", "free", "remove", "job"))),
    max_size=40,
)


@given(changes)
def test_counts_equal_a_recount(steps: list[tuple[int, str]]) -> None:
    given_ = Given()
    quota = (specs.Quota(accelerator="h100", nominal=1000),)
    given_.round(c.SetQuota(account="a", quotas=quota, queues=(specs.Queue(queue="q"),)))
    for number, (n, step) in enumerate(steps):
        name = f"n{n}"
        path = {"block": f"b{n // 4}"}
        made: dict[str, c.Command] = {
            "add": node(name, rack=f"k{n // 2}", path=path, labels={"odd": str(n % 2)}),
            "cordon": c.CordonNode(node=name),
            "free": c.CordonNode(node=name, cordoned=False),
            "remove": c.RemoveNode(node=name),
            "job": job(f"j{number}", slots=n % 4 + 1),
        }
        given_.round(made[step])
        recount(given_)


def recount(given_: Given) -> None:
    cell = given_.cell
    for class_ in cell.fabric.classes.values():
        mine = [n for n in cell.nodes.values() if n.class_ is class_]
        assert class_.counts == [sum(n.available == k for n in mine) for k in range(9)]
        assert class_.free == sum(n.available for n in mine)
        for k in range(9):
            indexes = sorted(n.index for n in mine if n.available == k)
            first = cell.fabric.smallest(class_, k)
            assert (first.index if first else None) == (indexes[0] if indexes else None)
    for level, domains in enumerate(cell.fabric.domains):
        assert [d.path for d in domains] == sorted(d.path for d in domains)
        assert {d.path for d in domains} == {n.rack.path[: level + 1] for n in cell.nodes.values()}
        for domain in domains:
            recount_domain(domain, list(nodes_of(domain)))


def recount_domain(domain: Domain, nodes: list[Node]) -> None:
    assert domain.size == len(nodes)
    for id_, counts in domain.counts.items():
        mine = [n.available for n in nodes if n.class_.id == id_]
        assert counts == [mine.count(k) for k in range(9)]
        assert domain.free[id_] == sum(mine)
    assert set(domain.counts) == {n.class_.id for n in nodes}
