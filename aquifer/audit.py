"""`aquifer audit`: prove a ledger, look at a round, and take the ledger away as a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aquifer.output import JsonFlag, emit, fail, note, progress

if TYPE_CHECKING:
    from aquifer.ledgers import Source
    from streams.replay import Verdict
    from streams.snapshots import FileSnapshots

EVERY: Final = 256
"""Records between two steps of the bar."""

app = typer.Typer(help="Prove a ledger, look into it, export it.", no_args_is_help=True)

LedgerPath = Annotated[
    Path | None,
    typer.Argument(help="Folder, its cell.sqlite, or an exported file; by default the cell's own."),
]
Keys = Annotated[Path | None, typer.Option(help="JSON list of the public keys to believe.")]


@app.command()
def verify(
    ledger: LedgerPath = None,
    keys: Keys = None,
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="That decide again, each between two snapshots.")
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Check chain and signatures, and decide every round again: the bytes must be the same."""
    answer = prove(ledger, keys, processes)
    emit(answer, as_json)
    if answer["broken"] is not None:
        fail(f"round {answer['broken']['round']}: {answer['broken']['rule']}")


def prove(ledger: Path | None, keys: Path | None = None, processes: int = 1) -> dict[str, Any]:
    """The verdict on a ledger; `broken` names rule and round of the first break, or is None."""
    return asyncio.run(_prove(ledger, keys, processes))


async def _prove(ledger: Path | None, keys: Path | None, processes: int) -> dict[str, Any]:
    from aquifer import ledgers, settings
    from streams import replay

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        if processes > 1 and source.snapshots is not None:
            proven = await _prove_in_parallel(source, source.snapshots, processes)
            if proven is not None:
                return _answer(proven)
            note("something does not hold: one process looks for the first break")
        steps = (
            replay.verify(
                source.log, source.verifier, cell_name=source.cell, expected=source.expected
            )
            if source.file is None
            else replay.verify_file(source.file, source.verifier, cell_name=source.cell)
        )
        verdict = replay.Verdict(source.cell)
        with progress("proving the ledger") as tell:
            async for verdict in steps:
                if verdict.records % EVERY == 0:
                    tell(verdict.records, max(verdict.records, source.size))
    return _answer(verdict)


async def _prove_in_parallel(
    source: Source, snapshots: FileSnapshots, processes: int
) -> Verdict | None:
    """None if something does not hold."""
    from streams import replay
    from streams.parallel_replay import verify_in_parallel

    expected = source.expected
    if source.file is not None and expected is None:
        return None  # its last line is missing or damaged
    proven = replay.Verdict(source.cell)
    steps = verify_in_parallel(
        source.log, snapshots, source.verifier, source.cell, expected, processes
    )
    with progress("proving the ledger") as tell:
        async for verdict in steps:
            if verdict is None:
                return None
            proven = verdict
            tell(proven.records, max(proven.records, source.size))
    whole = source.file is None or proven.head == expected
    return proven if whole else None


def _answer(verdict: Verdict) -> dict[str, Any]:
    broken = verdict.broken
    return {
        "cell": verdict.cell,
        "rounds": verdict.rounds,
        "facts": verdict.facts,
        "commands": verdict.commands,
        "records": verdict.records,
        "strays": verdict.strays,
        "decided_again": verdict.rounds - verdict.folded,
        "head": verdict.head.hash,
        "intact": verdict.intact,
        "broken": None
        if broken is None
        else {"round": broken.round, "rule": broken.rule, "detail": broken.detail},
    }


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ROUND", min=1, help="Which round.")],
    ledger: LedgerPath = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Print one believed round: its header, commands, refusals and facts."""
    record = asyncio.run(_show(number, ledger, keys))
    if record is None:
        fail(f"the ledger's chain does not reach round {number}")
    if as_json:
        emit(record, True)
        return
    body = record["body"]
    emit({name: body[name] for name in ("cell", "header", "inputs", "state", "prev")}, False)
    for kind in ("commands", "refusals", "facts"):
        print(f"\n{kind}:")
        for entry in body[kind]:
            emit(json.dumps(entry, ensure_ascii=False), False)


async def _show(number: int, ledger: Path | None, keys: Path | None) -> dict[str, Any] | None:
    from aquifer import ledgers, settings
    from streams.reader import LedgerReader

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        reader = LedgerReader(source.log, source.cell, source.verifier)
        async for believed in reader.read():
            if believed.head.round == number:
                found: dict[str, Any] = json.loads(believed.record)
                return found
    return None


@app.command()
def who(
    name: Annotated[str, typer.Argument(help="A job, queue, account, node or reservation.")],
    ledger: LedgerPath = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell which commands, by whom, spoke of a thing, and what became of each."""
    from aquifer.settings import load
    from aquifer.subjects import revealed

    found = revealed(load(), asyncio.run(_who(name, ledger, keys)))
    emit(found, as_json)
    if not found:
        fail(f"no command speaks of {name!r}")


async def _who(name: str, ledger: Path | None, keys: Path | None) -> list[dict[str, Any]]:
    import msgspec

    from aquifer import ledgers, settings
    from streams.causes import causes
    from streams.reader import LedgerReader

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        reader = LedgerReader(source.log, source.cell, source.verifier)
        return [
            msgspec.to_builtins(cause)
            async for believed in reader.read()
            for cause in causes(believed.round, name)
        ]
