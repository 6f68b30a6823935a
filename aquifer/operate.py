"""`aquifer doctor` and `aquifer quarantine`: what an operator does before and after trouble."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.output import USAGE, JsonFlag, emit, fail

if TYPE_CHECKING:
    from aquifer.folder import Folder
    from aquifer.settings import Settings
    from streams.doctor import Finding

quarantine_app = typer.Typer(
    help="Commands over which the decider trips, taken out by place.", no_args_is_help=True
)


def doctor(as_json: JsonFlag = False) -> None:
    """Check what a start would refuse: settings, keys, topics, and the log against memory."""
    from aquifer.settings import load

    findings = asyncio.run(_findings(load()))
    rows = [{"check": f.name, "ok": f.ok, "detail": f.detail} for f in findings]
    emit({"checks": rows} if as_json else rows, as_json)
    if not all(f.ok for f in findings):
        fail(f"{sum(not f.ok for f in findings)} of {len(findings)} checks failed")


async def _findings(settings: Settings) -> list[Finding]:
    from streams.doctor import check_assertions, check_directory, check_form, check_key

    folder = state_of(settings)
    folder.root.mkdir(parents=True, exist_ok=True)
    key = settings.signing_key or folder.signing_key
    findings = [check_assertions(), check_form(), check_directory(folder.root), check_key(key)]
    topics = await _topics(settings)
    findings += topics
    if all(f.ok for f in topics):
        findings.append(await _head(settings, folder))
    return findings


def state_of(settings: Settings) -> Folder:
    """The cell's folder: in the embedded profile that of its newest run, if there is one."""
    from aquifer.folder import Folder, NoFolder, existing

    if settings.distributed:
        return Folder(settings.state_dir)
    try:
        return existing(settings.state_dir)
    except NoFolder:
        return Folder(settings.state_dir)


async def _topics(settings: Settings) -> list[Finding]:
    """Empty in the embedded profile."""
    from streams.doctor import Finding

    if settings.kafka is None:
        return []
    from aiokafka.errors import KafkaError

    from streams.topics import check_topics

    try:
        wrong, ids = await check_topics(settings.kafka, settings.cell)
    except KafkaError as error:
        return [Finding("kafka", False, str(error))]
    if wrong:
        return [Finding("topics", False, str(finding)) for finding in wrong]
    return [Finding("topics", True, f"{len(ids)} are as they must be")]


async def _head(settings: Settings, folder: Folder) -> Finding:
    from aquifer.ledgers import NoLedger, opened
    from streams.doctor import Finding, check_head
    from streams.remembered import RememberedHead

    if not folder.head.exists():
        return Finding("believed head", True, "nothing was believed before")
    path = None if settings.distributed else folder.root
    try:
        async with opened(settings, path, None) as source:
            remembered = RememberedHead(folder.head)
            return await check_head(source.cell, source.log, source.verifier, remembered)
    except (NoLedger, OSError) as error:
        return Finding("believed head", False, str(error))


@quarantine_app.command("add")
def quarantine_add(
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As the stop named it.")],
    as_json: JsonFlag = False,
) -> None:
    """Take a command out: from its next start on, the decider refuses it and says so."""
    from aquifer.settings import load
    from streams import quarantine

    match = re.fullmatch(r"(\d{1,9}):(\d{1,18})", place)
    if match is None:
        fail(f"{place!r} is not PARTITION:OFFSET", USAGE)
    path = state_of(load()).quarantine
    quarantine.add(path, (int(match[1]), int(match[2])))
    emit(_listed(), as_json)


@quarantine_app.command("list")
def quarantine_list(as_json: JsonFlag = False) -> None:
    """The places that are taken out."""
    emit(_listed(), as_json)


def _listed() -> dict[str, Any]:
    from aquifer.settings import load
    from streams import quarantine

    places = sorted(quarantine.load(state_of(load()).quarantine))
    return {"quarantined": [f"{partition}:{offset}" for partition, offset in places]}
