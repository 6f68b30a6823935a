"""Renting: nodes of a simulated provider come late, are denied, taken away, and given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.facts import AttemptEnded, JobFinished, NodeDraining, NodeRegistered, NodeRemoved
from domain.ledger import Round, unseal
from domain.pool.outlook import PRICE
from domain.specs import FabricPath
from streams import traces
from streams.providers import PROVIDER, Denied, Offer
from streams.rented import Rented
from streams.renting import Rules
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation
from streams.simulated_provider import SimulatedProvider
from tests.streams.simulate_test import OneKey, rows, starts

HOUR_S = 3600
CHEAP = Offer(
    offer="cheap",
    accelerator=traces.GPU,
    slots=8,
    path=FabricPath(region="cloud", cluster="cloud", block="b", rack="r"),
    price_milli=2000,
    most=4,
    lead_s=300,
    term_s=HOUR_S,
)
DEAR = CHEAP.model_copy(update={"offer": "dear", "price_milli": 5000})
RULES = Rules(patience_s=120)
Jobs = Sequence[tuple[str, int, int, int]]


def run(
    jobs: Jobs, providers: Sequence[SimulatedProvider], rules: Rules = RULES, own: int = 1
) -> tuple[Rented, list[Round]]:
    """(job, submit_s, duration_s, gpus) on so many own nodes of 8."""
    nodes = traces.partition_nodes({"p": own}, 8)
    scenario = traces.scenario(rows(*jobs), nodes)
    for quota in scenario.quotas:
        entries = tuple(q.model_copy(update={"nominal": 64}) for q in quota.quotas)
        scenario.quotas[scenario.quotas.index(quota)] = quota.model_copy(update={"quotas": entries})
    records: list[bytes] = []
    rented = Rented(Simulation("c", scenario, OneKey(), records.append), providers, rules)
    rented.run()
    return rented, [unseal(record, None)[0] for record in records]


def seconds(rounds: list[Round], kind: type[Any]) -> list[int]:
    return [
        (r.header.now_ms - EPOCH_MS) // 1000 for r in rounds for f in r.facts if type(f) is kind
    ]


def test_a_job_that_waits_for_room_gets_a_node_and_gives_it_back() -> None:
    provider = SimulatedProvider("cloud", [CHEAP])
    rented, rounds = run([("a", 0, 10_000, 8), ("b", 0, 1000, 8)], [provider])
    assert not rented.simulation.cell.jobs
    at = starts(rounds)["b"]
    assert 120 + 300 <= at <= 120 + 300 + 3 * 60, "patience, lead, and looks every minute"
    assert rented.most == 1
    removed = seconds(rounds, NodeRemoved)
    assert len(removed) == 1
    assert at + 1000 <= removed[0] <= 120 + 300 + 180 + HOUR_S, "idle, it goes before its next term"
    assert provider.cost_milli == 2000 * 8, "one term of one node"
    assert not provider.held(rented.simulation.now_ms)


def test_a_rented_node_names_its_provider_and_price() -> None:
    provider = SimulatedProvider("cloud", [CHEAP.model_copy(update={"term_s": 100_000})])
    rented, _ = run([("a", 0, 5000, 8), ("b", 0, 1000, 8)], [provider])
    (node,) = [n for n in rented.simulation.cell.nodes.values() if n.spec.labels.get(PROVIDER)]
    assert node.spec.labels == {PROVIDER: "cloud", PRICE: "2000"}


def test_the_cheapest_comes_first_and_a_denial_asks_the_next() -> None:
    cheap = SimulatedProvider("first", [CHEAP], deny_ppm=1_000_000)
    dear = SimulatedProvider("second", [DEAR])
    rented, rounds = run([("a", 0, 5000, 8), ("b", 0, 1000, 8)], [dear, cheap])
    assert cheap.denied >= 1
    assert dear.cost_milli > 0
    assert starts(rounds)["b"] <= 120 + 300 + 180
    with pytest.raises(Denied, match="no more"):
        cheap.request(CHEAP, CHEAP.most + 1, rented.simulation.now_ms)


def test_a_denied_request_is_made_again_after_a_pause() -> None:
    provider = SimulatedProvider("cloud", [CHEAP], deny_ppm=1_000_000, retry_s=600)
    rented, _ = run([("a", 0, 6000, 8), ("b", 0, 100, 8)], [provider])
    assert provider.denied == pytest.approx(6000 / 600, abs=2)
    assert rented.most == 0


def test_what_waits_for_quota_or_too_short_is_not_rented_for() -> None:
    provider = SimulatedProvider("cloud", [CHEAP])
    rented, _ = run([("a", 0, 100, 8), ("b", 0, 100, 8)], [provider])
    assert (rented.most, provider.cost_milli) == (0, 0), "it waits for 100 s"
    strict = Rules(patience_s=0, accounts=("another",))
    rented, _ = run([("a", 0, 5000, 8), ("b", 0, 100, 8)], [provider], strict)
    assert (rented.most, provider.cost_milli) == (0, 0), "only for another account"


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        (RULES, CHEAP.most),
        (Rules(patience_s=120, most_milli_an_hour=2 * 8 * 2000), 2),
        (Rules(patience_s=120, price_most_milli=1999), 0),
    ],
)
def test_money_and_kinds_bound_what_is_rented(rules: Rules, most: int) -> None:
    jobs = [(f"j{n}", 0, 5000, 8) for n in range(12)]
    assert run(jobs, [SimulatedProvider("cloud", [CHEAP])], rules)[0].most == most


def test_it_comes_to_an_end_if_nothing_can_ever_be_rented() -> None:
    provider = SimulatedProvider("cloud", [CHEAP], deny_ppm=1_000_000)
    rented, _ = run([("large", 0, 100, 16)], [provider])
    assert provider.denied > 100, "it was asked for, for a day"
    assert len(rented.simulation.cell.jobs) == 1


def test_a_gang_gets_all_its_nodes_at_once() -> None:
    provider = SimulatedProvider("cloud", [CHEAP])
    rented, rounds = run([("a", 0, 6000, 8), ("gang", 0, 1000, 24)], [provider])
    assert rented.most == 3
    assert starts(rounds)["gang"] <= 120 + 300 + 180


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    slow = CHEAP.model_copy(update={"lead_s": 3000})
    provider = SimulatedProvider("cloud", [slow])
    rented, _ = run([("a", 0, 9000, 8), ("b", 0, 1000, 8)], [provider])
    assert rented.most == 1
    assert provider.cost_milli == 2000 * 8


@pytest.mark.parametrize("notice_s", [0, 200])
def test_a_node_that_is_taken_away_is_drained_first_and_its_work_goes_on(notice_s: int) -> None:
    long = CHEAP.model_copy(update={"term_s": 10 * HOUR_S})
    provider = SimulatedProvider("cloud", [long], interrupt_ppm=1_000_000, notice_s=notice_s)
    jobs = [("a", 0, 80_000, 8), ("b", 0, 30_000, 8)]
    rented, rounds = run(jobs, [provider])
    assert provider.interrupted >= 1
    assert len(seconds(rounds, NodeRemoved)) >= 1
    assert len(seconds(rounds, NodeDraining)) >= (1 if notice_s else 0)
    assert not rented.simulation.cell.jobs, "both came to their end"
    reasons = {f.reason for r in rounds for f in r.facts if isinstance(f, AttemptEnded)}
    assert reasons >= {"finished"}
    assert reasons & {"drained", "node_lost"}


def test_a_lease_without_renewal_ends_with_a_drain_in_time() -> None:
    fixed = CHEAP.model_copy(update={"renews": False, "term_s": 2 * HOUR_S})
    provider = SimulatedProvider("cloud", [fixed])
    _, rounds = run([("a", 0, 12_000, 8), ("b", 0, 1000, 8)], [provider])
    registered = seconds(rounds, NodeRegistered)[-1]
    drained = seconds(rounds, NodeDraining)
    assert len(drained) == 1
    assert registered < drained[0] <= registered + 2 * HOUR_S - 600 + 60


def test_after_a_restart_it_goes_on_from_the_cell_and_the_provider() -> None:
    provider = SimulatedProvider("cloud", [CHEAP.model_copy(update={"lead_s": 1000})])
    jobs = [("a", 0, 9000, 8), ("b", 0, 1000, 8)]
    nodes = traces.partition_nodes({"p": 1}, 8)
    scenario = traces.scenario(rows(*jobs), nodes)
    entries = tuple(q.model_copy(update={"nominal": 64}) for q in scenario.quotas[-1].quotas)
    scenario.quotas[-1] = scenario.quotas[-1].model_copy(update={"quotas": entries})
    simulation = Simulation("c", scenario, OneKey(), lambda record: None)
    while simulation.now_ms < EPOCH_MS + 600_000:
        next_ms = simulation.next_ms() or simulation.now_ms + 60_000
        simulation.step(min(next_ms, simulation.now_ms + 60_000))
        Rented(simulation, [provider], RULES).renter.step(simulation.cell, simulation.now_ms)
    assert len(provider.held(simulation.now_ms)) == 1, "however many there were, one was asked for"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_providers_do_bounds_hold_and_all_work_ends(data: st.DataObject) -> None:
    offers = [
        CHEAP.model_copy(
            update={
                "offer": f"o{n}",
                "price_milli": data.draw(st.sampled_from((1000, 2000, 3000))),
                "most": data.draw(st.integers(1, 4)),
                "lead_s": data.draw(st.sampled_from((0, 60, 1000))),
                "term_s": data.draw(st.sampled_from((600, 1800, 3600))),
                "renews": data.draw(st.booleans()),
            }
        )
        for n in range(data.draw(st.integers(1, 2)))
    ]
    provider = Watched(
        "cloud",
        offers,
        seed=data.draw(st.integers(0, 99)),
        deny_ppm=data.draw(st.sampled_from((0, 300_000))),
        interrupt_ppm=data.draw(st.sampled_from((0, 300_000))),
        notice_s=data.draw(st.sampled_from((0, 120))),
    )
    jobs = [
        (f"j{n}", *data.draw(st.tuples(st.integers(0, 4000), st.integers(1, 3000))), slots)
        for n, slots in enumerate(data.draw(st.lists(st.sampled_from((1, 8, 16)), max_size=12)))
    ] or [("j", 0, 10, 1)]
    money = data.draw(st.sampled_from((8 * 1000, 8 * 4000, 10**9)))
    rules = Rules(patience_s=data.draw(st.sampled_from((0, 300))), most_milli_an_hour=money)
    rented, rounds = run(jobs, [provider], rules, own=2)
    assert not rented.simulation.cell.jobs
    assert provider.most_milli_an_hour <= money
    assert all(provider.most[o.offer] <= o.most for o in offers)
    ended = [f.job for r in rounds for f in r.facts if isinstance(f, JobFinished)]
    assert sorted(ended) == sorted(name for name, *_ in jobs)


class Watched(SimulatedProvider):
    """It remembers the most that was ever asked of it."""

    def __init__(self, name: str, offers: Sequence[Offer], **options: Any) -> None:
        super().__init__(name, offers, **options)
        self.most: Counter[str] = Counter()
        self.most_milli_an_hour = 0

    def request(self, offer: Offer, count: int, now_ms: int) -> None:
        super().request(offer, count, now_ms)
        held = [r.offer for r in self.held(now_ms)]
        rate = sum(o.price_milli * o.slots for o in held)
        self.most_milli_an_hour = max(self.most_milli_an_hour, rate)
        for name, amount in Counter(o.offer for o in held).items():
            self.most[name] = max(self.most[name], amount)


def test_the_same_seed_gives_the_same_ledger() -> None:
    def heads() -> list[int]:
        provider = SimulatedProvider(
            "cloud", [CHEAP], seed=7, deny_ppm=300_000, interrupt_ppm=300_000
        )
        _, rounds = run([(f"j{n}", 60 * n, 2000, 8) for n in range(20)], [provider])
        return [r.header.now_ms for r in rounds]

    assert heads() == heads()
