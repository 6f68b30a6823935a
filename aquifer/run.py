"""`aquifer run`: a generated day on a virtual clock, its proof, and then the live cell.

The day runs on the virtual clock into a fresh folder. Then the ledger is proven, and unless --once
was said the same cell lives on: decider, fleet, projector and read API in this one process.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aquifer.folder import RUNS, Folder, bulk_ledger, fresh
from aquifer.output import USAGE, JsonFlag, emit, fail, note

if TYPE_CHECKING:
    from aquifer.live import Origin
    from aquifer.settings import Settings

HOUR_MS: Final = 3_600_000
POOL_JOBS: Final = 300
"""Most jobs of a pool: it runs on the clock of the world, if faster."""


def run(
    once: Annotated[
        bool, typer.Option("--once", help="End after the proof; print the ledger's path.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the generated day.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Jobs of a day.")] = 4000,
    port: Annotated[int | None, typer.Option(help="Of the read API; 0: any.")] = None,
    speed: Annotated[
        int, typer.Option(min=1, max=3600, help="The live cell's seconds in one of ours.")
    ] = 60,
    folder: Annotated[
        Path | None, typer.Option(help="Where the state is or goes; by default a fresh one.")
    ] = None,
    regions: Annotated[
        int, typer.Option(min=1, max=9, help="So many regions as one pool; with --once only.")
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Watch a cell schedule a day of work, prove its ledger, and keep it running."""
    from aquifer.api import listen
    from aquifer.settings import load

    settings = load()
    if regions > 1:
        from aquifer.regions import run_pool

        if not once:
            fail("--regions: give --once, too", USAGE)
        run_pool(settings, folder, regions, seed, min(jobs, POOL_JOBS), as_json)
        return
    listener = None if once else listen(settings, port)
    place = Folder(folder) if folder is not None else fresh(settings.state_dir / RUNS)
    known = place.ledger.exists()
    if known and once:
        fail(f"{place.ledger} exists: --once makes a new one", USAGE)
    origin = None if known else _day(settings, place, seed, jobs, as_json)
    if listener is None:
        return
    from aquifer.live import Life, live
    from aquifer.together import until_stopped

    until_stopped(live(settings, place, origin, Life(seed, jobs, speed), listener))


def _day(settings: Settings, place: Folder, seed: int, jobs: int, as_json: bool) -> Origin:
    """Simulate and prove a day; what a live cell takes over from it."""
    from aquifer.audit import prove
    from aquifer.live import Origin
    from aquifer.simulate import keep, watch
    from aquifer.trust import signer_of
    from streams import workload
    from streams.simulate import Simulation

    now_ms = time.time_ns() // 1_000_000
    origin_ms = now_ms - now_ms % HOUR_MS - workload.DAY_MS
    scenario = workload.day(seed, origin_ms, jobs)
    signer = signer_of(settings, place)
    with bulk_ledger(place) as append:
        simulation = Simulation(settings.cell, scenario, signer, append, origin_ms=origin_ms)
        watch(simulation, "a day of work", origin_ms + workload.DAY_MS)
    keep(place, simulation)
    report = simulation.measure.report(simulation.last_submission_ms)
    report["proof"] = prove(place.root)
    report["cpu_s"] = round(time.process_time(), 2)
    report["ledger"] = str(place.ledger)
    _tell(report, as_json)
    return Origin(simulation.fleet, scenario.work)


def _tell(report: dict[str, Any], as_json: bool) -> None:
    proof = report["proof"]
    if as_json:
        emit(report, True)
    else:
        emit({name: value for name, value in report.items() if name != "proof"}, False)
    if proof["broken"] is not None:
        fail(f"the ledger does not hold: {proof['broken']}")
    note(
        f"proven: {proof['rounds']} rounds, chain and signatures intact,"
        f" {proof['decided_again']} of them decided again to the same bytes"
    )
