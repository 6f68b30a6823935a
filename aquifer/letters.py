"""`aquifer dead-letters`: what intake did not accept, with the reason; sent again on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aquifer.output import USAGE, JsonFlag, emit, fail

if TYPE_CHECKING:
    from aquifer.settings import Settings
    from domain.ports import DeadLetter, DeadLetters

SHOWN: Final = 120
"""Characters of a message that a list shows."""

app = typer.Typer(help="Messages that were not accepted.", no_args_is_help=True)


@app.command("list")
def list_letters(
    code: Annotated[str | None, typer.Option(help="Only those with this code.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, oldest first, each with its place, code, field and rule."""
    letters = [_row(letter) for letter in _read() if code in (None, letter.code)]
    emit({"dead_letters": letters} if as_json else letters, as_json)


@app.command()
def resend(
    place: Annotated[
        list[str] | None, typer.Argument(help="PARTITION:OFFSET, as listed.", metavar="PLACE…")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send dead letters again as they were: after the cause, not the message, was mended."""
    wanted = set(place or ())
    if everything == bool(wanted):
        fail("name places, or say --all", USAGE)
    letters = [x for x in _read() if everything or _place(x) in wanted]
    missing = wanted - {_place(x) for x in letters}
    if missing:
        fail(f"no dead letter at {', '.join(sorted(missing))}")
    asyncio.run(_resend(letters))
    emit({"sent": [_place(x) for x in letters]}, as_json)


def _place(letter: DeadLetter) -> str:
    return f"{letter.partition}:{letter.offset}"


def _row(letter: DeadLetter) -> dict[str, Any]:
    from streams.envelope import format_time_ms

    text = letter.value.decode("utf-8", "backslashreplace")
    return {
        "place": _place(letter),
        "time": format_time_ms(letter.time_ms),
        "code": letter.code,
        "field": letter.field,
        "message": letter.message,
        "value": text if len(text) <= SHOWN else f"{text[:SHOWN]}…",
    }


def _read() -> list[DeadLetter]:
    from aquifer.settings import load

    async def read() -> list[DeadLetter]:
        async with _opened(load()) as letters:
            return [letter async for letter in letters.read()]

    return asyncio.run(read())


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[DeadLetters]:
    from aquifer.folder import existing

    if settings.kafka is not None:
        from streams.kafka import KafkaDeadLetters

        async with KafkaDeadLetters(settings.kafka, settings.cell) as topic:
            yield topic
        return
    from streams.sqlite import Database, SqliteDeadLetters

    database = Database(existing(settings.state_dir).ledger)
    try:
        yield SqliteDeadLetters(database)
    finally:
        database.close()


async def _resend(letters: list[DeadLetter]) -> None:
    from aquifer.settings import load
    from aquifer.ways import sink
    from domain.ports import Message

    async with sink(load()) as way:
        for letter in letters:
            await way.send(Message(letter.value, letter.headers, letter.key))
