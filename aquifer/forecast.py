"""`aquifer forecast` and `submit --dry-run`: when, where and at whose cost waiting jobs start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aquifer.audit import Keys
from aquifer.output import FAILED, JsonFlag, emit, fail

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import SubmitJob
    from streams.forecast import Expected, Forecast

Json = dict[str, Any]

ROUNDS: Final = 5_000


def forecast(
    job: Annotated[
        list[str] | None,
        typer.Argument(help="Waiting jobs; by default the next of each shape."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How far to look ahead at most, in rounds.")
    ] = ROUNDS,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder or exported file; by default the cell's own.")
    ] = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell when waiting jobs are expected to start, and what that rests on."""
    found = asyncio.run(_forecast(job or [], rounds, ledger, keys))
    rows = [_row(found, expected) for expected in found.expected]
    if as_json:
        emit({**_told(found), "jobs": rows}, True)
    else:
        emit(rows, False)


async def _forecast(
    jobs: Sequence[str], rounds: int, ledger: Path | None, keys: Path | None
) -> Forecast:
    from aquifer.clocks import SystemClock
    from streams.forecast import Outlook, heads

    cell = await folded(ledger, keys)
    wanted = list(jobs) or [head.id for head in heads(cell)]
    for name in jobs:
        there = cell.jobs.get(name)
        if there is None or not there.queued:
            fail(f"{name}: no such job waits", FAILED)
    now_ms = cell.now_ms if ledger is not None else SystemClock().now_ms()
    return Outlook(cell, now_ms).look(wanted, rounds)


async def folded(ledger: Path | None, keys: Path | None) -> Cell:
    """The cell as its ledger leaves it."""
    from aquifer import ledgers, settings
    from streams.reader import catch_up, restore

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        cell, reader = await restore(source.cell, source.log, source.verifier, source.snapshots)
        async for _ in catch_up(cell, reader):
            pass
        return cell


def dry_run(command: SubmitJob, as_json: bool) -> None:
    """Tell what would become of the job if it were submitted now; exit code 1 if refused."""
    found = asyncio.run(_supposed(command))
    if found.refused is not None:
        refused = found.refused
        if as_json:
            emit({**_told(found), "refused": _refusal(found)}, True)
            raise typer.Exit(FAILED)
        fail(f"{refused.field}: {refused.message} ({refused.code})", FAILED)
    if not found.expected:
        fail("the job would be admitted, and fail at once", FAILED)
    row = _row(found, found.expected[0])
    emit({**_told(found), **row} if as_json else row, as_json)


async def _supposed(command: SubmitJob) -> Forecast:
    from aquifer.clocks import SystemClock
    from streams.forecast import Outlook

    outlook = Outlook(await folded(None, None), SystemClock().now_ms())
    outlook.suppose(command)
    return outlook.look([command.job])


def _refusal(found: Forecast) -> Json:
    refused = found.refused
    assert refused is not None, "asked for"
    return {"code": refused.code, "field": refused.field, "message": refused.message}


def _told(found: Forecast) -> Json:
    from streams.envelope import format_time_ms

    return {
        "at": format_time_ms(found.now_ms),
        "looked_ahead_to": format_time_ms(found.until_ms),
        "rounds": found.rounds,
    }


def _row(found: Forecast, expected: Expected) -> Json:
    from streams.envelope import format_time_ms

    at_ms = expected.at_ms
    return {
        "job": expected.job,
        "alike": expected.alike,
        "starts": None if at_ms is None else format_time_ms(at_ms),
        "in_s": None if at_ms is None else (at_ms - found.now_ms) // 1000,
        "accelerator": expected.accelerator,
        "nodes": dict(expected.nodes),
        "preempts": {v.job: v.cost_slot_s for v in expected.victims},
        "ends_assumed": expected.ends,
        "model": expected.model,
        "reason": expected.reason,
    }
