"""The read API as a profile serves it: its settings reach it, and who asks reaches the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from aquifer.api import guarded, services
from aquifer.clocks import SystemClock
from aquifer.errors import Misuse
from aquifer.settings import Settings
from domain.ledger import Accepted
from projections.http import create_app
from projections.sqlite_store import SqliteStore
from streams.identity import Identity
from streams.sqlite import Database, SqliteCommandSink, SqliteDeadLetters, SqliteInbox

BODY = {"job": "j", "queue": "q", "flavours": [{"accelerator": "h100"}], "groups": [{}]}


def readers(folder: Path) -> Path:
    hashed = hashlib.sha256(b"a secret").hexdigest()
    table = {"readers": [{"actor": "boss", "token_sha256": hashed, "operator": True}]}
    file = folder / "readers.json"
    file.write_text(json.dumps(table))
    return file


async def ask(
    settings: Settings, folder: Path, asked: list[tuple[str, str, Any]], **headers: str
) -> tuple[list[httpx.Response], list[Accepted]]:
    """Answers of the served app, and what intake accepted in the end."""
    database, store = Database(folder / "cell.sqlite"), SqliteStore(folder / "rows.sqlite")
    letters, clock = SqliteDeadLetters(database), SystemClock()
    given = services(settings, store, clock, SqliteCommandSink(database), letters)
    try:
        async with guarded(settings, given) as served:
            transport = httpx.ASGITransport(create_app(served))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://here", headers=headers
            ) as client:
                answers = [await client.request(m, path, json=body) for m, path, body in asked]
        accepted = await SqliteInbox(database, Identity(), letters, clock).take({}, 100, 0)
        return answers, list(accepted)
    finally:
        database.close()
        await store.close()


def test_who_submits_is_named_in_what_the_ledger_takes(tmp_path: Path) -> None:
    settings = Settings(readers=readers(tmp_path))
    asked = [("POST", "/v1/commands/SubmitJob", BODY)]
    token = "Bearer a secret"
    answers, accepted = asyncio.run(ask(settings, tmp_path, asked, Authorization=token))
    assert answers[0].status_code == 202, answers[0].text
    (command,) = accepted
    assert (command.type, command.actor, command.source) == ("SubmitJob", "boss", "http.boss")
    assert command.id == answers[0].json()["id"]


def test_strangers_neither_read_nor_submit(tmp_path: Path) -> None:
    settings = Settings(readers=readers(tmp_path))
    asked = [("POST", "/v1/commands/SubmitJob", BODY), ("GET", "/v1/jobs", None)]
    answers, accepted = asyncio.run(ask(settings, tmp_path, asked))
    assert [a.status_code for a in answers] == [401, 401]
    assert accepted == []


def test_without_a_table_of_readers_the_api_is_open(tmp_path: Path) -> None:
    asked = [("POST", "/v1/commands/SubmitJob", BODY), ("GET", "/v1/jobs", None)]
    answers, accepted = asyncio.run(ask(Settings(), tmp_path, asked))
    assert [a.status_code for a in answers] == [202, 200]
    assert [(c.actor, c.source) for c in accepted] == [("anonymous", "http")]


def test_the_rate_limit_is_that_of_the_settings(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = [("GET", "/v1/summary", None)] * 200
    answers, _ = asyncio.run(ask(Settings(rate_limit=1), tmp_path, asked))
    assert {a.status_code for a in answers} == {200, 429}
    assert [a.status_code for a in answers[:2]] == [200, 200]
    answers, _ = asyncio.run(ask(Settings(rate_limit=0), tmp_path, asked))
    assert {a.status_code for a in answers} == {200}


@pytest.mark.parametrize("text", ["", "{}", '{"readers": [{"actor": "a b"}]}'])
def test_a_wrong_table_of_readers_is_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "readers.json"
    file.write_text(text)
    with pytest.raises(Misuse, match=r"^AQUIFER_READERS: "):
        asyncio.run(ask(Settings(readers=file), tmp_path, []))
