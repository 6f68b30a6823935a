"""CloudEvents 1.0 over Kafka: commands to messages and back, structured and binary mode.

Structured: the value is one `application/cloudevents+json` document, as the header `content-type`
says. Binary: the value is the command's body and the attributes are `ce_` headers. The type of a
command is `aquifer.<Command>.v1`. A signed message names its key in the extension attribute `keyid`
and has a header `aquifer-signature`, an Ed25519 signature in hex over `Envelope.signed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Raw, Struct

from domain.commands import COMMANDS, VERSION, Command
from domain.ledger import canonical
from domain.ports import Message

STRUCTURED: Final = "application/cloudevents+json"
SIGNATURE: Final = "aquifer-signature"
ACTOR: Final = "aquifer-actor"
"""Set by a gateway that has authenticated the caller; heeded where nothing is signed."""

MAX_ATTRIBUTE: Final = 256
"""Characters of an attribute."""

Sign = Callable[[bytes], bytes]

_TYPE: Final = re.compile(r"aquifer\.([A-Za-z]{1,64})\.v([0-9]{1,4})")
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_FIELD: Final = re.compile(r"`\$?\.?([a-z]+)`")


class Malformed(Exception):
    """The message is no command of ours: a stable code, the field, and the rule that it breaks."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.code = code
        self.field = field
        self.message = message


class Envelope(Struct, frozen=True, gc=False):
    """What a message says of its command; `data` is the body, not looked at yet."""

    model: str
    """Name of the command's model."""
    source: str
    id: str
    time_ms: int
    data: Raw
    key: str | None
    signature: str | None
    """In hex, as it came."""
    signed: bytes
    """The bytes that a signature is over."""
    actor: str | None
    """As the header says."""


class _Structured(Struct):
    specversion: str
    type: str
    source: str
    id: str
    time: str
    data: Raw
    datacontenttype: str = "application/json"
    keyid: str | None = None


_decoder: Final = msgspec.json.Decoder(_Structured, strict=True)


def type_of(model: str) -> str:
    """CloudEvents type of a command's model."""
    return f"aquifer.{model}.v{VERSION}"


def model_of(type_: str) -> str:
    """The model's name. Raises Malformed with unknown_type or unknown_version."""
    match = _TYPE.fullmatch(type_)
    if match is None or match[1] not in COMMANDS:
        raise Malformed("unknown_type", "type", "is aquifer.<Command>.v<version> of a command")
    if match[2] != str(VERSION):
        raise Malformed("unknown_version", "type", f"version is {VERSION}")
    return match[1]


def parse_time_ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time. Raises ValueError."""
    if _TIME.fullmatch(text) is None:
        raise ValueError("is not an RFC 3339 time with a zone")
    time_ms = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MS
    if time_ms < 0:
        raise ValueError("is before 1970")
    return time_ms


def format_time_ms(time_ms: int) -> str:
    return (_EPOCH + time_ms * _MS).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03}Z"


def parse(message: Message) -> Envelope:
    """The envelope of a message of either mode. Raises Malformed."""
    headers = _headers(message)
    if headers.get("content-type", "").lower().startswith("application/cloudevents"):
        return _parse_structured(message.value, headers)
    if "ce_specversion" in headers:
        return _parse_binary(message.value, headers)
    rule = f"a CloudEvent has content-type {STRUCTURED} or headers ce_…"
    raise Malformed("not_a_cloudevent", "headers", rule)


def _headers(message: Message) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in message.headers:
        if not (name.startswith("ce_") or name in ("content-type", SIGNATURE, ACTOR)):
            continue  # others may pass along traces and the like
        if name in headers:
            raise Malformed("duplicate_header", clip(name), "a header stands once")
        try:
            headers[name] = value.decode()
        except UnicodeDecodeError:
            raise Malformed("invalid_utf8", clip(name), "headers are UTF-8") from None
    return headers


def _parse_structured(value: bytes, headers: dict[str, str]) -> Envelope:
    if headers["content-type"].split(";")[0].strip().lower() != STRUCTURED:
        raise Malformed("content_type", "content-type", f"is {STRUCTURED}")
    try:
        event = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_an_event(error) from None
    if event.keyid is not None:
        _attribute("keyid", event.keyid)
    return _envelope(
        (event.specversion, event.type, event.source, event.id, event.time),
        event.datacontenttype,
        event.data,
        event.keyid,
        value,
        headers,
    )


def _parse_binary(value: bytes, headers: dict[str, str]) -> Envelope:
    names = ("specversion", "type", "source", "id", "time")
    for name in names:
        if f"ce_{name}" not in headers:
            raise Malformed("missing_field", name, "is required")
    attributes = tuple(headers[f"ce_{name}"] for name in names)
    signed = "\n".join(attributes[1:]).encode() + b"\n" + value
    content_type = headers.get("content-type", "application/json")
    key = headers.get("ce_keyid")
    if key is not None:
        _attribute("keyid", key)
    return _envelope(attributes, content_type, Raw(value), key, signed, headers)


def _envelope(
    attributes: tuple[str, ...],
    content_type: str,
    data: Raw,
    key: str | None,
    signed: bytes,
    headers: dict[str, str],
) -> Envelope:
    version, type_, source, id_, time = attributes
    if version != "1.0":
        raise Malformed("unknown_version", "specversion", "is 1.0")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise Malformed("content_type", "datacontenttype", "is application/json")
    _attribute("type", type_)
    _attribute("source", source)
    _attribute("id", id_)
    try:
        time_ms = parse_time_ms(time)
    except (ValueError, OverflowError) as error:
        rule = str(error) if str(error).startswith("is ") else "is no time that there is"
        raise Malformed("invalid_field", "time", rule) from None
    actor = headers.get(ACTOR)
    if actor is not None:
        _attribute(ACTOR, actor)
    signature = headers.get(SIGNATURE)
    return Envelope(model_of(type_), source, id_, time_ms, data, key, signature, signed, actor)


def _attribute(name: str, value: str) -> None:
    if not 0 < len(value) <= MAX_ATTRIBUTE or _CONTROL.search(value) is not None:
        rule = f"has 1 to {MAX_ATTRIBUTE} characters, none of them a space or a control character"
        raise Malformed("invalid_field", name, rule)


def _not_an_event(error: Exception) -> Malformed:
    text = str(error)
    field = _FIELD.search(text)
    if "missing required field" in text and field is not None:
        return Malformed("missing_field", field[1], "is required")
    if "at `$." in text:
        name = text.rsplit("`$.", 1)[1].rstrip("`")
        return Malformed("invalid_field", clip(name), "is a string")
    return Malformed("invalid_json", "", "the value is one JSON object")


def clip(text: str) -> str:
    """Harmless to store and to show: printable ASCII, not long."""
    return text[:128].encode("unicode_escape").decode()[:128]


def structured(
    command: Command,
    *,
    source: str,
    id: str,
    time_ms: int,
    key_id: str | None = None,
    sign: Sign | None = None,
) -> Message:
    """The command as a structured-mode message; `key_id` and `sign` go together."""
    event: dict[str, object] = {
        "specversion": "1.0",
        "type": type_of(type(command).__name__),
        "source": source,
        "id": id,
        "time": format_time_ms(time_ms),
        "datacontenttype": "application/json",
        "data": body_of(command),
    }
    if key_id is not None:
        event["keyid"] = key_id
    value = canonical(event)
    headers = [("content-type", STRUCTURED.encode())]
    if sign is not None:
        headers.append((SIGNATURE, sign(value).hex().encode()))
    return Message(value, tuple(headers), source.encode())


def binary(
    command: Command,
    *,
    source: str,
    id: str,
    time_ms: int,
    key_id: str | None = None,
    sign: Sign | None = None,
) -> Message:
    """The command as a binary-mode message; `key_id` and `sign` go together."""
    value = canonical(body_of(command))
    attributes = {
        "type": type_of(type(command).__name__),
        "source": source,
        "id": id,
        "time": format_time_ms(time_ms),
    }
    headers = [("ce_specversion", b"1.0")]
    headers += [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    headers.append(("content-type", b"application/json"))
    if key_id is not None:
        headers.append(("ce_keyid", key_id.encode()))
    if sign is not None:
        signed = "\n".join(attributes.values()).encode() + b"\n" + value
        headers.append((SIGNATURE, sign(signed).hex().encode()))
    return Message(value, tuple(headers), source.encode())


def body_of(command: Command) -> dict[str, object]:
    """The command's body as the ledger keeps it: defaults and the redundant `type` left out.

    So a default must never change within a version: old records would mean something else.
    """
    body: dict[str, object] = command.model_dump(mode="json", exclude_defaults=True)
    return body
