"""`aquifer simulate`: a trace on a virtual clock, through the same two doors as everything."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from aquifer.folder import Folder, bulk_ledger, fresh
from aquifer.output import USAGE, JsonFlag, emit, fail, progress

if TYPE_CHECKING:
    from aquifer.settings import Settings
    from domain.commands import RegisterNode
    from streams.scenario import Scenario
    from streams.simulate import Simulation

CELL: Final = "simulation"
EVERY: Final = 500
"""Arrivals between two steps of the bar."""

Format = Literal["jobs", "openb", "slo"]


def simulate(
    trace: Annotated[Path, typer.Option(help="CSV file of jobs.")],
    format: Annotated[Format, typer.Option(help="What its columns mean.")] = "jobs",
    nodes: Annotated[
        str, typer.Option(help="PARTITION=COUNT,…: nodes of each partition.", metavar="SIZES")
    ] = "",
    gpus_per_node: Annotated[int, typer.Option(min=1, max=64)] = 8,
    node_list: Annotated[
        Path | None, typer.Option(help="CSV file of nodes (format openb), instead of --nodes.")
    ] = None,
    pooled: Annotated[
        bool,
        typer.Option(
            "--pooled/--apart", help="One pool with a quota for each partition, or nodes apart."
        ),
    ] = True,
    preemptible: Annotated[
        bool, typer.Option("--preemptible", help="Jobs may be preempted, to reclaim quota.")
    ] = False,
    checkpoint_s: Annotated[
        int, typer.Option(min=0, help="Interval of checkpoints; 0: a preemption loses all.")
    ] = 0,
    round_s: Annotated[int, typer.Option(min=1, help="Virtual time between rounds.")] = 1,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder for the ledger; it must not exist.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw utilisation and queue length into this file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Replay a trace and report queueing, completion, utilisation and losses."""
    from streams import traces

    options = traces.Options(not pooled, preemptible, checkpoint_s)
    try:
        park = _nodes(nodes, gpus_per_node, node_list)
        scenario = traces.scenario(traces.read(trace, format), park, options)
    except (traces.BadTrace, ValueError) as error:
        fail(str(error), USAGE)
    simulation, path = _run(scenario, ledger, round_s)
    report = simulation.measure.report(simulation.last_submission_ms)
    report["cpu_s"] = round(time.process_time(), 2)
    report["ledger"] = str(path)
    if plot is not None:
        from streams.plot import draw

        draw(simulation.measure.timeline, plot)
    emit(report, as_json)


def _nodes(sizes: str, gpus_per_node: int, node_list: Path | None) -> list[RegisterNode]:
    from streams import traces

    if (node_list is None) == (not sizes):
        raise ValueError("give either --nodes or --node-list")
    if node_list is not None:
        return traces.listed_nodes(node_list)
    return traces.partition_nodes(parse_sizes(sizes), gpus_per_node)


def parse_sizes(text: str) -> dict[str, int]:
    """`PARTITION=COUNT,…`. Raises ValueError."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, count = part.strip().partition("=")
        if not equals or not count.isdecimal() or not 0 < int(count) <= 100_000:
            raise ValueError(f"--nodes: {part!r} is not PARTITION=COUNT")
        if name in sizes:
            raise ValueError(f"--nodes: partition {name!r} stands twice")
        sizes[name] = int(count)
    return sizes


def _run(scenario: Scenario, ledger: Path | None, round_s: int) -> tuple[Simulation, Path]:
    """Run to the end; the simulation, and where its ledger is."""
    from aquifer.settings import load
    from aquifer.trust import signer_of
    from streams.simulate import Simulation

    settings = load()
    folder = _folder(settings, ledger)
    signer = signer_of(settings, folder)
    with bulk_ledger(folder) as append:
        simulation = Simulation(CELL, scenario, signer, append, round_ms=1000 * round_s)
        watch(simulation, "simulating")
    keep(folder, simulation)
    return simulation, folder.ledger


def _folder(settings: Settings, ledger: Path | None) -> Folder:
    if ledger is None:
        return fresh(settings.state_dir / "simulations")
    if ledger.exists():
        fail(f"--ledger: {ledger} exists", USAGE)
    ledger.mkdir(parents=True)
    return Folder(ledger)


def watch(simulation: Simulation, what: str, until_ms: int | None = None) -> None:
    """Run the simulation with a bar that follows the arrivals."""
    total = simulation.arrivals
    with progress(what) as tell:
        told = 0
        for arrived in simulation.run(until_ms):
            if arrived - told >= EVERY:
                told = arrived
                tell(arrived, total)
        tell(total, total)


def keep(folder: Folder, simulation: Simulation) -> None:
    """Remember the ledger's head, and the state there, so that others need not read it all."""
    from streams.remembered import RememberedHead
    from streams.snapshots import FileSnapshots

    cell = simulation.cell
    RememberedHead(folder.head).write(cell.head)
    FileSnapshots(folder.snapshots).save(cell.head.round, cell.head.round - 1, cell.snapshot())
