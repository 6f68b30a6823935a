"""The way in over HTTP: a command is only appended; its outcome is read like anyone else's."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import TypeAdapter, ValidationError

from domain.commands import COMMANDS, Command
from domain.ports import DeadLetter
from projections.access import Reader, authorise
from projections.problems import Problem, fields_of
from projections.reading import Admitted, Limit, services_of
from projections.services import Services

router = APIRouter(prefix="/v1", tags=["commands"])

MAX_BODY: Final = 64 * 1024
SOURCE: Final = "http"
"""Source of the open API's commands; that of a known reader ends in its name."""
_adapters: Final = {name: TypeAdapter(model) for name, model in COMMANDS.items()}

Given = Annotated[Services, Depends(services_of)]


@router.post("/commands/{type}", status_code=202)
async def submit(
    request: Request,
    services: Given,
    reader: Admitted,
    type: str,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=128)] = None,
) -> dict[str, Any]:
    """Append a command. With the same Idempotency-Key it is decided once, however often it is sent.

    202 says that it is stored; what became of it is at `outcome`.
    """
    if services.sink is None or services.envelope is None:
        raise Problem(405, "read_only", "this API takes no commands")
    if type not in COMMANDS:
        raise Problem(404, "unknown_type", f"no command is named {type!r}", known=sorted(COMMANDS))
    command = _parsed(type, await _body(request))
    sight = await services.sight(reader, await services.store.applied(services.cell))
    await authorise(sight, services.store, services.cell, command)
    source = f"{SOURCE}.{reader.actor}" if reader else SOURCE
    id_ = idempotency_key or uuid.uuid4().hex
    actor = reader.actor if reader else None
    await services.sink.send(services.envelope(command, source, id_, actor))
    outcome = f"/v1/commands/{quote(source)}/{quote(id_, safe='')}"
    return {"source": source, "id": id_, "type": type, "outcome": outcome}


@router.post("/letters", status_code=202)
async def letter(
    request: Request,
    services: Given,
    reader: Admitted,
    aquifer_signature: Annotated[str, Header(min_length=1, max_length=256)],
) -> dict[str, Any]:
    """Append a signed letter of another region; intake believes it by its signature alone."""
    if services.letters is None:
        raise Problem(405, "no_letters", "this API takes no letters: nothing is signed here")
    try:
        await services.letters(await _body(request), aquifer_signature)
    except ValueError as error:
        raise Problem(400, "malformed", str(error)) from error
    return {"stored": True}


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Problem(413, "too_large", f"a command has at most {MAX_BODY} bytes")
    return body


def _parsed(type: str, body: bytes) -> Command:
    try:
        command: Command = _adapters[type].validate_json(body)
    except ValidationError as error:
        detail = f"the body is not a valid {type}"
        raise Problem(400, "malformed", detail, fields=fields_of(error)) from error
    return command


@router.get("/dead-letters")
async def dead_letters(
    services: Given,
    reader: Admitted,
    limit: Limit = 100,
    after: Annotated[str, Query(max_length=64, description="`next` of the page before.")] = "",
) -> dict[str, Any]:
    """Messages that were not accepted, oldest first, with their reasons; bytes as escaped text."""
    _operators_only(reader)
    items: list[dict[str, Any]] = []
    passed = not after
    async for letter in _letters(services):
        if passed:
            items.append(_shown(letter))
            if len(items) == limit:
                break
        passed = passed or _place(letter) == after
    return {"items": items, "next": items[-1]["place"] if len(items) == limit else None}


@router.post("/dead-letters/{place}/resend", status_code=202)
async def resend(services: Given, reader: Admitted, place: str) -> dict[str, Any]:
    """Send the message once more, as it is, through the same checks."""
    _operators_only(reader)
    if services.sink is None or services.resend is None:
        raise Problem(405, "read_only", "this API takes no commands")
    async for letter in _letters(services):
        if _place(letter) == place:
            await services.sink.send(services.resend(letter))
            return {"place": place, "resent": True}
    raise Problem(404, "not_found", f"no dead letter stands at {place!r}")


def _operators_only(reader: Reader | None) -> None:
    if reader is not None and not reader.operator:
        raise Problem(403, "forbidden", "dead letters are for operators: they may be anyone's")


def _letters(services: Services) -> Any:
    if services.dead_letters is None:
        raise Problem(404, "not_found", "dead letters are not served here")
    return services.dead_letters.read()


def _place(letter: DeadLetter) -> str:
    return f"{letter.partition}-{letter.offset}"


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "place": _place(letter),
        "time_ms": letter.time_ms,
        "code": letter.code,
        "field": letter.field,
        "message": letter.message,
        "bytes": len(letter.value),
        "value": letter.value[:2000].decode("utf-8", "backslashreplace"),
    }
