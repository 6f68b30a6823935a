"""Intake: a message becomes an accepted command or a dead letter, and nothing else.

Pure. Limits come before parsing, authentication before the body, rights after it. No message makes
it raise, and what a message says is not repeated in a dead letter's reason unless it is short.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from msgspec import Raw
from pydantic import TypeAdapter, ValidationError

from domain.commands import COMMANDS, Command
from domain.ledger import Accepted, canonical
from domain.ports import DeadLetter, Message
from streams.envelope import Malformed, body_of, clip, parse
from streams.identity import Identity, authorise

MAX_VALUE: Final = 64 * 1024
MAX_HEADERS: Final = 32
MAX_HEADER: Final = 1024
"""Bytes of a header's name and value."""
MAX_DEPTH: Final = 16
MAX_DIGITS: Final = 19

_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_PYDANTIC: Final = {"missing": "missing_field", "extra_forbidden": "unknown_field"}
_adapters: Final[dict[str, TypeAdapter[Command]]] = {
    name: TypeAdapter(model) for name, model in COMMANDS.items()
}


def accept(
    message: Message, partition: int, offset: int, identity: Identity, now_ms: int
) -> Accepted | DeadLetter:
    """`partition` and `offset` are the message's place; `now_ms` is a dead letter's time."""
    try:
        return _accept(message, partition, offset, identity)
    except Malformed as reason:
        return DeadLetter(
            partition,
            offset,
            reason.code,
            reason.field,
            reason.message,
            now_ms,
            message.value,
            message.headers,
            message.key,
        )


def _accept(message: Message, partition: int, offset: int, identity: Identity) -> Accepted:
    _check_size(message)
    _check_json(message.value)
    event = parse(message)
    speaker, actor = identity.speaker(event)
    command = _validated(event.model, event.data)
    if actor is not None:
        authorise(actor, event.model, command)
    return Accepted(
        partition,
        offset,
        event.id,
        event.source,
        event.model,
        speaker,
        event.time_ms,
        Raw(canonical(body_of(command))),
        event.key if identity.signed else None,
        event.signature if identity.signed else None,
    )


def _check_size(message: Message) -> None:
    if len(message.value) > MAX_VALUE:
        raise Malformed("too_large", "value", f"at most {MAX_VALUE} bytes")
    if len(message.headers) > MAX_HEADERS:
        raise Malformed("too_large", "headers", f"at most {MAX_HEADERS} headers")
    for name, value in message.headers:
        if len(name) + len(value) > MAX_HEADER:
            raise Malformed("too_large", "headers", f"at most {MAX_HEADER} bytes each")


def _check_json(value: bytes) -> None:
    """One JSON object: UTF-8, not deep, no name twice in an object, integers only, none huge."""
    # Fewer brackets than levels cannot be too deep: the usual case costs next to nothing.
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Malformed("too_deep", "value", f"at most {MAX_DEPTH} levels of JSON")
    try:
        document = _decoder.decode(value.decode())
    except UnicodeDecodeError:
        raise Malformed("invalid_utf8", "value", "JSON is UTF-8") from None
    except json.JSONDecodeError:
        raise Malformed("invalid_json", "value", "is one JSON object") from None
    if not isinstance(document, dict):
        raise Malformed("invalid_json", "value", "is one JSON object")


def _depth(value: bytes) -> int:
    depth = deepest = 0
    for match in _TOKENS.finditer(value):
        token = match[0]
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("duplicate_key", "value", "a name stands once in a JSON object")
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise Malformed("number_too_large", "value", f"at most {MAX_DIGITS} digits")
    return int(text)


def _no_float(text: str) -> NoReturn:
    raise Malformed("not_an_integer", "value", "numbers are integers, without point or exponent")


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_no_float,
    parse_constant=_no_float,
)


def _validated(model: str, data: Raw) -> Command:
    try:
        return _adapters[model].validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    code = _PYDANTIC.get(first["type"], "invalid_field")
    if first["type"] == "json_invalid":
        code = "invalid_json"
    raise Malformed(code, clip(field or "data"), clip(first["msg"]))
