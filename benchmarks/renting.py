"""Microsoft ITP's jobs on three quarters of its nodes, and a provider: money against waiting."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.keys import Ed25519
from benchmarks.traces import FILES, SIZES
from domain.commands import SetQuota
from domain.specs import FabricPath
from streams import traces
from streams.providers import Offer
from streams.rented import Rented
from streams.renting import Rules
from streams.simulate import Simulation
from streams.simulated_provider import SimulatedProvider

OWN: Final = {name: nodes * 3 // 4 for name, nodes in SIZES["itp"].items()}
OFFER: Final = Offer(
    offer="on-demand",
    accelerator=traces.GPU,
    slots=8,
    path=FabricPath(region="cloud", cluster="cloud", block="b", rack="r"),
    price_milli=2000,
    most=24,
    lead_s=600,
    term_s=3600,
)
PATIENCE_S: Final = (None, 14_400, 3600, 600)
"""None: nothing is rented."""


def _doubled(quota: SetQuota) -> SetQuota:
    """Quota for what is rented, too: nothing is rented for what waits for quota."""
    entries = [q.model_copy(update={"nominal": 2 * q.nominal}) for q in quota.quotas]
    return quota.model_copy(update={"quotas": tuple(entries)})


def run(rows: list[traces.Row], patience_s: int | None, deny_ppm: int) -> dict[str, Any]:
    begin = time.process_time()
    scenario = traces.scenario(rows, traces.partition_nodes(OWN, 8))
    scenario.quotas = [_doubled(quota) for quota in scenario.quotas]
    simulation = Simulation("renting", scenario, Ed25519(), len, round_ms=10_000)
    provider = SimulatedProvider(
        "cloud", [OFFER], seed=1, deny_ppm=deny_ppm, interrupt_ppm=20_000, notice_s=120
    )
    rules = Rules(patience_s=patience_s or 0)
    rented = Rented(simulation, [provider] if patience_s is not None else [], rules)
    rented.run()
    report = simulation.measure.report(simulation.last_submission_ms)
    kept = ("jobs_finished", "queue_mean_s", "queue_p99_s", "rounds")
    return {
        "patience_s": patience_s,
        **{name: report[name] for name in kept},
        "most_rented_nodes": rented.most,
        "cost": provider.cost_milli // 1000,
        "requests_denied": provider.denied,
        "nodes_taken_away": provider.interrupted,
        "cpu_s": round(time.process_time() - begin, 1),
    }


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks renting", description=__doc__)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--jobs", type=int, help="only so many of the trace")
    parser.add_argument("--deny-ppm", type=int, default=100_000)
    args = parser.parse_args(argv)
    rows = traces.read(args.traces / FILES["itp"], "jobs")[: args.jobs]
    runs = [run(rows, patience_s, args.deny_ppm) for patience_s in PATIENCE_S]
    return {"own_nodes": sum(OWN.values()), "price_of_a_slot_hour": 2, "runs": runs}
