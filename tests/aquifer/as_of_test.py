"""What stood then: answers as of a moment equal those that were given at that moment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from aquifer.cli import app
from aquifer.folder import Folder, bulk_ledger
from aquifer.read import STATES, WHOLE
from aquifer.settings import Settings
from aquifer.trust import signer_of
from domain.ledger import unseal
from projections.http import create_app
from projections.projector import Projector
from projections.services import Services
from projections.sqlite_store import SqliteStore
from streams import workload
from streams.envelope import format_time_ms
from streams.simulate import Simulation
from streams.snapshots import FileSnapshots

START_MS = 1_735_689_600_000
KINDS = (*sorted(STATES), "jobs", "decisions")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A cell's folder, and the records of its ledger."""
    folder = Folder(tmp_path_factory.mktemp("cell"))
    day = workload.day(2, START_MS, 300)
    records: list[bytes] = []
    with bulk_ledger(folder) as append:

        def keep(record: bytes) -> None:
            append(record)
            records.append(record)

        signer = signer_of(Settings(), folder)
        simulation = Simulation("local", day, signer, keep, origin_ms=START_MS)
        snapshots = FileSnapshots(folder.snapshots)
        for _ in simulation.run(START_MS + 4 * 3_600_000):
            cell = simulation.cell
            if cell.head.round % 40 == 0:
                snapshots.save(cell.head.round, cell.head.round - 1, cell.snapshot())
    return folder.root, records


async def live(records: list[bytes], path: Path) -> dict[str, Any]:
    """What the read API said when these were all the records."""
    store = SqliteStore(path)
    projector = Projector("local", store, None)
    for position, record in enumerate(records):
        await projector.on_record(position, record)
    transport = httpx.ASGITransport(create_app(Services(store, "local")))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        found = {kind: (await client.get(_path(kind))).json() for kind in KINDS}
    await store.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 3, 9])
def test_as_of_a_round_or_its_time(
    past: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    root, records = past
    monkeypatch.setenv("AQUIFER_STATE_DIR", str(root))
    number = len(records) * part // 10
    told = asyncio.run(live(records[:number], tmp_path / "rows.sqlite"))
    rounds = [unseal(record, None)[0] for record in records]
    at_ms = rounds[number - 1].header.now_ms
    moments = [str(number)]
    if rounds[number].header.now_ms > at_ms:
        moments.append(format_time_ms(at_ms))
    for kind in KINDS:
        for moment in moments:
            result = CliRunner().invoke(app, ["get", kind, "--at", moment, "--json"])
            assert result.exit_code == 0, result.output
            answer = json.loads(result.stdout.splitlines()[-1])
            assert without_cursor(answer) == without_cursor(told[kind]), (kind, moment)


def _path(kind: str) -> str:
    return f"/v1/{kind}" if kind in WHOLE else f"/v1/{kind}?limit=100"


def without_cursor(answer: dict[str, Any]) -> dict[str, Any]:
    """A cursor is signed with a key of the process that gave it."""
    return {name: value for name, value in answer.items() if name != "next"}
