"""Who is speaking, and for whom: key id -> actor, and the names that an actor may use.

A record on the bus does not carry its producer's principal, so in the `signed` mode a command
carries a signature, and the body never names the actor. In the `open` mode nothing is signed: the
actor is whom a gateway names, or anonymous.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from domain.commands import Command
from streams.envelope import Envelope, Malformed

ANONYMOUS: Final = "anonymous"

Role = Literal["producer", "agent", "operator", "peer"]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,128}\*?$", min_length=1)]
"""A name, or a prefix of names if it ends in `*`."""

Patterns = Annotated[tuple[Pattern, ...], Field(max_length=1000)]

RIGHTS: Final[dict[str, tuple[Role, dict[str, str]]]] = {
    "SubmitJob": ("producer", {"job": "jobs", "queue": "queues"}),
    "CancelJob": ("producer", {"job": "jobs"}),
    "AmendJob": ("producer", {"job": "jobs"}),
    "RequestReservation": (
        "producer",
        {"reservation": "reservations", "account": "accounts", "queues": "queues"},
    ),
    "CancelReservation": ("producer", {"reservation": "reservations"}),
    "PlanMaintenance": ("operator", {}),
    "CancelMaintenance": ("operator", {}),
    "RegisterNode": ("agent", {"node": "nodes"}),
    "ReportNode": ("agent", {"node": "nodes"}),
    "ReportAttempt": ("agent", {"nodes": "nodes"}),
    "ReportCheckpoint": ("agent", {}),
    "PreemptJob": ("operator", {}),
    "CordonNode": ("operator", {}),
    "DrainNode": ("operator", {}),
    "RemoveNode": ("operator", {}),
    "SetQuota": ("operator", {}),
    "SetPolicy": ("operator", {}),
    "DraftPolicy": ("operator", {}),
    "ReplayPolicy": ("operator", {}),
    "StartCanary": ("operator", {}),
    "ActivatePolicy": ("operator", {}),
    "RollBackPolicy": ("operator", {}),
    "ReportSignal": ("operator", {}),
    "SetPeers": ("operator", {}),
    "GrantRights": ("operator", {}),
    "AdvertiseInventory": ("peer", {"region": "regions"}),
    "OfferHandoff": ("peer", {"region": "regions"}),
    "AnswerHandoff": ("peer", {"region": "regions"}),
    "WithdrawHandoff": ("peer", {"region": "regions"}),
    "ReleaseHandoff": ("peer", {"region": "regions"}),
    "AcknowledgeHandoff": ("peer", {"region": "regions"}),
    "ConfirmHandoff": ("peer", {"region": "regions"}),
    "RequestRights": ("peer", {"region": "regions"}),
    "SendRights": ("peer", {"region": "regions"}),
    "GuardJob": ("peer", {"region": "regions"}),
    "AnswerGuard": ("peer", {"region": "regions"}),
    "EndGuard": ("peer", {"region": "regions"}),
    "FenceRegion": ("operator", {}),
}
"""By command: the role that may give it, and of which list of the actor each name must be.

An operator may give any, for any name.
"""

EVERY_NODE: Final = ("*",)
"""Who names no node speaks for all nodes of the attempt: only the pattern `*` allows that."""


class Actor(BaseModel):
    """Deny by default: only what is listed here is the actor's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
    keys: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Key id -> raw Ed25519 public key in hex; several while keys are being changed."""
    roles: tuple[Role, ...] = ()
    jobs: Patterns = ()
    queues: Patterns = ()
    accounts: Patterns = ()
    reservations: Patterns = ()
    nodes: Patterns = ()
    regions: Patterns = ()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: tuple[Actor, ...]


class Identity:
    """The table of actors; without one, the mode is `open`."""

    def __init__(self, actors: tuple[Actor, ...] | None = None) -> None:
        """Raises ValueError for a key that is none, or that two actors have."""
        self.signed = actors is not None
        self._keys: dict[str, tuple[Actor, Ed25519PublicKey]] = {}
        for actor in actors or ():
            for key_id, public in actor.keys.items():
                if key_id in self._keys:
                    raise ValueError(f"key {key_id!r} stands twice")
                raw = bytes.fromhex(public)
                self._keys[key_id] = (actor, Ed25519PublicKey.from_public_bytes(raw))

    @staticmethod
    def load(path: Path) -> Identity:
        """Of a JSON file `{"actors": [...]}`. Raises OSError, ValueError."""
        return Identity(_Table.model_validate(json.loads(path.read_bytes())).actors)

    def speaker(self, envelope: Envelope) -> tuple[str, Actor | None]:
        """Name of who speaks, and what is theirs (None: all). Raises Malformed unauthenticated."""
        if not self.signed:
            return envelope.actor or ANONYMOUS, None
        if envelope.key is None or envelope.signature is None:
            raise Malformed("unauthenticated", "keyid", "commands are signed here")
        known = self._keys.get(envelope.key)
        if known is None:
            raise Malformed("unauthenticated", "keyid", "the key is not known")
        actor, public = known
        try:
            public.verify(bytes.fromhex(envelope.signature), envelope.signed)
        except (ValueError, InvalidSignature):
            rule = "the signature is not that of the key over these bytes"
            raise Malformed("unauthenticated", "signature", rule) from None
        return actor.actor, actor


def authorise(actor: Actor, model: str, command: Command) -> None:
    """Raise Malformed forbidden if the actor may not give the command for these names."""
    if "operator" in actor.roles:
        return
    role, owned = RIGHTS[model]
    if role not in actor.roles:
        raise Malformed("forbidden", "type", f"it takes the role {role}")
    for field, kind in owned.items():
        value: str | tuple[str, ...] = getattr(command, field)
        names = (value,) if isinstance(value, str) else value or EVERY_NODE
        patterns: Patterns = getattr(actor, kind)
        for name in names:
            if not any(_matches(name, pattern) for pattern in patterns):
                rule = f"the actor has no right to name {name!r} here"
                raise Malformed("forbidden", field, rule)


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
