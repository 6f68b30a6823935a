"""`aquifer audit as-of|diff|export`: what stood at a moment, what changed, and all as a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aquifer.audit import EVERY, Keys, LedgerPath
from aquifer.moments import moment_of
from aquifer.output import USAGE, JsonFlag, emit, fail, progress
from aquifer.read import KINDS, get

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aquifer.moments import Moment

Format = Literal["ledger", "ndjson", "parquet"]
Json = dict[str, Any]

ALWAYS = ("summary", "round", "job_numbers")
"""What changes with every round, or only leads to other rows, says nothing."""


def as_of(
    moment: Annotated[str, typer.Argument(help="A round's number, or a time.")],
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))] = "summary",
    name: Annotated[str | None, typer.Argument(help="One of them.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="FIELD=VALUE; repeat.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Answer as `get` would have at a moment, from the ledger alone."""
    get(kind, name, where, limit, None, moment, None, as_json)


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A round's number, or a time.")],
    after: Annotated[str, typer.Argument(metavar="B", help="A later one.")],
    ledger: LedgerPath = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what changed between two moments, entity by entity."""
    moments = moment_of(before, "A"), moment_of(after, "B")
    found = asyncio.run(_diff(*moments, ledger, keys))
    emit({"changes": found} if as_json else found, as_json)


async def _diff(
    before: Moment, after: Moment, ledger: Path | None, keys: Path | None
) -> list[Json]:
    from aquifer import ledgers, settings
    from aquifer.projecting import Ledger, state_at

    sides: list[dict[tuple[str, str], Json]] = []
    async with ledgers.opened(settings.load(), ledger, keys) as source:
        read = Ledger(source.cell, source.log, source.verifier, source.size, source.snapshots)
        for moment in (before, after):
            found = await state_at(read, moment, jobs=True)
            rows = found[0] if found is not None else []
            sides.append(
                {
                    (row.table, _name(row.key, row.values)): row.values
                    for row in rows
                    if row.values is not None and row.table not in ALWAYS
                }
            )
    return list(_changes(*sides))


def _name(key: Sequence[object], values: Json) -> str:
    """The entity's name: a job's own (its row is kept by number), else the key but for the cell."""
    return str(values.get("job") or "/".join(map(str, key[1:])))


def _changes(old: dict[tuple[str, str], Json], new: dict[tuple[str, str], Json]) -> list[Json]:
    changes: list[Json] = []
    for table, key in sorted(old.keys() | new.keys()):
        one, two = old.get((table, key)), new.get((table, key))
        if one == two:
            continue
        what = "added" if one is None else "removed" if two is None else "changed"
        fields = {
            name: [(one or {}).get(name), (two or {}).get(name)]
            for name in dict.fromkeys([*(one or {}), *(two or {})])
            if (one or {}).get(name) != (two or {}).get(name)
        }
        changes.append({"entity": table, "name": key, "change": what, "fields": fields})
    return changes


def export(
    file: Annotated[Path, typer.Argument(help="Where to.")],
    ledger: LedgerPath = None,
    format: Annotated[
        Format,
        typer.Option(
            help="ledger: the records, which `audit verify` proves on their own, with public keys"
            " in FILE.keys.json; ndjson, parquet: a row for each fact."
        ),
    ] = "ledger",
    account: Annotated[
        str | None, typer.Option(help="Only facts of this account's jobs, quota, reservations.")
    ] = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the believed records to a file, or their facts as rows."""
    if file.exists():
        fail(f"{file} exists", USAGE)
    if format == "ledger":
        if account is not None:
            fail("--account: a ledger is proven as a whole; take ndjson or parquet", USAGE)
        emit(asyncio.run(_export(file, ledger, keys)), as_json)
    else:
        emit(asyncio.run(_export_rows(file, format, account, ledger, keys)), as_json)


async def _export(file: Path, ledger: Path | None, keys: Path | None) -> Json:
    from aquifer import ledgers, settings
    from streams.export import export as write
    from streams.reader import LedgerReader

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        reader = LedgerReader(source.log, source.cell, source.verifier)
        with progress("exporting") as tell:
            async for number in write(reader, file):
                if number % EVERY == 0:
                    tell(number, max(number, source.size))
        ring = ledgers.keys_beside(file)
        source.verifier.save(ring)
    return {"file": str(file), "keys": str(ring), "rounds": reader.head.round}


async def _export_rows(
    file: Path, format: Format, account: str | None, ledger: Path | None, keys: Path | None
) -> Json:
    from aquifer import ledgers, settings
    from streams.fact_rows import NdjsonFile, ParquetFile, batches
    from streams.reader import LedgerReader

    try:
        out = ParquetFile(file) if format == "parquet" else NdjsonFile(file)
    except ImportError:
        fail("pyarrow is not installed: pip install 'aquifer[parquet]'", USAGE)
    facts = 0
    try:
        async with ledgers.opened(settings.load(), ledger, keys) as source:
            reader = LedgerReader(source.log, source.cell, source.verifier)
            with progress("exporting") as tell:
                async for rows in batches(reader, account):
                    out.write(rows)
                    facts += len(rows)
                    tell(reader.head.round, max(reader.head.round, source.size))
    finally:
        out.close()
    return {"file": str(file), "facts": facts, "rounds": reader.head.round}


COMMANDS = (as_of, diff, export)
"""Of `aquifer audit`."""
