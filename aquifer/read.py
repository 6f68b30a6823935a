"""`aquifer get` and `aquifer explain`: questions to the read model.

They ask a running read API (--url). Without one the same API answers in this process, over the
embedded cell's files or over Cassandra.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from aquifer.errors import Misuse, Trouble
from aquifer.output import JsonFlag, emit

if TYPE_CHECKING:
    import httpx

    from aquifer.ledgers import Source
    from aquifer.moments import Moment
    from aquifer.projecting import Ledger
    from aquifer.settings import Settings
    from projections.store import Store
    from streams.snapshots import FileSnapshots

TIMEOUT_S: Final = 30
KINDS: Final = (
    "summary",
    "accounts",
    "queues",
    "nodes",
    "capacity",
    "reservations",
    "policies",
    "shapes",
    "jobs",
    "rounds",
    "decisions",
    "commands",
    "usage",
    "kpis",
    "promises",
    "windows",
)
WHOLE: Final = ("summary", "kpis")
"""Kinds that come whole, not by pages."""
STATES: Final = frozenset(
    (
        "summary",
        "accounts",
        "queues",
        "nodes",
        "capacity",
        "reservations",
        "policies",
        "shapes",
        "usage",
        "kpis",
    )
)
"""Kinds that tell of what there is, not of what has happened."""
At = Annotated[
    str | None,
    typer.Option(help="As it stood then: a round's number, or a time like 2026-01-31T12:00:00Z."),
]
Url = Annotated[str | None, typer.Option(help="A running read API; else the profile's stores.")]


def get(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    name: Annotated[str | None, typer.Argument(help="One of them; of commands SOURCE/ID.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="FIELD=VALUE, as the API's filters; repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Items of the page.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    at: At = None,
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Read accounts, queues, nodes, jobs and the rest, as they are or as they were."""
    if kind not in KINDS:
        raise Misuse(f"{kind!r} is none of {', '.join(KINDS)}")
    asked = {"limit": str(limit)} if name is None and kind not in WHOLE else {}
    for condition in where or ():
        field, equals, value = condition.partition("=")
        if not equals:
            raise Misuse(f"--where: {condition!r} is not FIELD=VALUE")
        asked[field] = value
    if cursor is not None:
        asked["cursor"] = cursor
    path = f"/v1/{kind}" if name is None else f"/v1/{kind}/{quote(name)}"
    answer = asyncio.run(ask(path, asked, url, _moment(at)))
    emit(answer if as_json or "items" not in answer else answer["items"], as_json)


def explain(
    job: Annotated[str, typer.Argument(help="The job's name.")],
    at: At = None,
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell a job's whole history, and why it waits if it does."""
    answer = asyncio.run(ask(f"/v1/jobs/{quote(job)}", {}, url, _moment(at)))
    if as_json:
        emit(answer, True)
    else:
        print("\n".join(_story(answer)))


def _story(job: dict[str, Any]) -> Iterator[str]:
    from streams.envelope import format_time_ms

    yield f"{job['job']} is {job['state']} (round {job['round']}), queue {job['queue']}"
    for event in job["events"]:
        body = ", ".join(f"{name} {value}" for name, value in event["body"].items() if value)
        when = format_time_ms(event["at_ms"])
        yield f"  {when}  round {event['round']}  {event['event']}  {body}"
    waiting = job.get("waiting")
    if waiting:
        bound = f" ({waiting['bound']})" if waiting["bound"] else ""
        needed, available = waiting["needed_milli"] / 1000, waiting["available_milli"] / 1000
        need = f": needs {needed:g} slots, there are {available:g}"
        yield f"  waits: {waiting['reason']}{bound}{need}; {waiting['alike']} like it wait"


def _moment(at: str | None) -> Moment | None:
    from aquifer.moments import moment_of

    return None if at is None else moment_of(at, "--at")


async def ask(path: str, asked: dict[str, str], url: str | None, at: Moment | None) -> Any:
    import httpx

    from aquifer.settings import load
    from aquifer.subjects import revealed

    settings = load()
    if at is not None and url is not None:
        raise Misuse("--at reads the ledger itself: it goes without --url")
    state_only = path.split("/")[2] in STATES
    async with _client(settings, None if at else url or settings.url, at, state_only) as client:
        try:
            response = await client.get(path, params=asked)
        except httpx.HTTPError as error:
            raise Trouble(f"{client.base_url}: {error or type(error).__name__}") from error
    answer: dict[str, Any] = response.json()
    if response.is_error:
        raise Trouble(f"{answer.get('title', response.status_code)}: {answer.get('detail', '')}")
    return revealed(settings, answer)


@asynccontextmanager
async def _client(
    settings: Settings, url: str | None, at: Moment | None, state_only: bool
) -> AsyncIterator[httpx.AsyncClient]:
    import httpx

    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
            yield client
        return
    from aquifer.api import services
    from aquifer.clocks import SystemClock
    from projections.http import create_app

    if at is not None:
        stores = _as_of(settings, at, state_only)
    else:
        stores = _cassandra(settings) if settings.distributed else _embedded(settings)
    async with stores as (cell, store):
        served = settings.model_copy(update={"cell": cell})
        transport = httpx.ASGITransport(create_app(services(served, store, SystemClock())))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            yield client


@asynccontextmanager
async def _as_of(
    settings: Settings, at: Moment, state_only: bool
) -> AsyncIterator[tuple[str, Store]]:
    """A read model of the ledger up to a moment, made for this question alone.

    What stood then comes from the nearest snapshot; what had happened by then from the start.
    """
    from aquifer import ledgers
    from aquifer.projecting import fill, fill_state
    from projections.sqlite_store import SqliteStore

    with TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "rows.sqlite")
        try:
            async with ledgers.opened(settings, None, None) as source:
                if state_only:
                    await fill_state(_ledger(source, source.snapshots), store, at)
                else:
                    await fill(_ledger(source, None), store, at)
            yield source.cell, store
        finally:
            await store.close()


def _ledger(source: Source, snapshots: FileSnapshots | None) -> Ledger:
    from aquifer.projecting import Ledger

    return Ledger(source.cell, source.log, source.verifier, source.size, snapshots)


@asynccontextmanager
async def _cassandra(settings: Settings) -> AsyncIterator[tuple[str, Store]]:
    from aquifer.api import cassandra

    async with cassandra(settings) as store:
        yield settings.cell, store


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[tuple[str, Store]]:
    """The read model in the cell's folder, brought up to date."""
    from aquifer import ledgers
    from aquifer.folder import existing
    from aquifer.projecting import fill
    from projections.sqlite_store import SqliteStore
    from streams.snapshots import FileSnapshots

    folder = existing(settings.state_dir)
    async with ledgers.opened(settings, folder.root, None) as source:
        store = SqliteStore(folder.read_model)
        try:
            await fill(_ledger(source, FileSnapshots(folder.snapshots)), store)
            yield source.cell, store
        finally:
            await store.close()
