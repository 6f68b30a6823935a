"""Who caused what: the commands of a ledger that speak of a thing, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from domain.ledger import Round

FIELDS: Final = ("job", "queue", "account", "node", "reservation", "parent")
"""Fields of commands that name one thing."""

_body: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Cause(Struct, frozen=True):
    round: int
    at_ms: int
    type: str
    actor: str
    """Who spoke, as intake found; `key` is the key that signed, if one had to."""
    source: str
    id: str
    outcome: str
    """accepted, duplicate, or a refusal's code."""
    body: dict[str, Any]
    key: str | None = None


def causes(round: Round, name: str) -> Iterator[Cause]:
    """The round's commands that speak of `name`, in their order."""
    refused = {r.command: r.code for r in round.refusals}
    twice = set(round.duplicates)
    for n, command in enumerate(round.commands):
        if name.encode() not in bytes(command.data):
            continue  # most commands; the body need not be read
        body = _body(command.data)
        if not speaks_of(body, name):
            continue
        outcome = "duplicate" if n in twice else refused.get(n, "accepted")
        yield Cause(
            round.header.round,
            round.header.now_ms,
            command.type,
            command.actor,
            command.source,
            command.id,
            outcome,
            body,
            command.key,
        )


def speaks_of(body: dict[str, Any], name: str) -> bool:
    if any(body.get(field) == name for field in FIELDS):
        return True
    entries = body.get("queues", ())  # names, or queues with a name
    return any(name == e or (isinstance(e, dict) and e.get("queue") == name) for e in entries)
