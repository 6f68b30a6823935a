"""Keys that cost next to nothing: HMAC behind the ports of the Ed25519 ones."""

from __future__ import annotations

import hmac
from typing import Any

from cryptography.exceptions import InvalidSignature

from streams.identity import Actor, Identity

OPERATOR = "operator"


class Key:
    """Signs, and verifies what it has signed: records of a cell."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.key_id.encode(), message, "sha256")

    def verify(self, key_id: str, signature: bytes, message: bytes) -> bool:
        return key_id == self.key_id and hmac.compare_digest(signature, self.sign(message))


class _Public:
    """An actor's key as intake uses it."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def verify(self, signature: bytes, message: bytes) -> None:
        if not self._key.verify(self._key.key_id, signature, message):
            raise InvalidSignature


def identity(clients: int, fleets: int) -> Identity:
    """Client 0 is the operator, the others are producers; fleets are agents of any node."""
    everything: Any = ("*",)
    actors = [Actor(actor=OPERATOR, roles=("operator",))]
    actors += [
        Actor(actor=f"client-{n}", roles=("producer",), jobs=everything, queues=everything)
        for n in range(1, clients)
    ]
    actors += [Actor(actor=f"fleet-{n}", roles=("agent",), nodes=everything) for n in range(fleets)]
    made = Identity(tuple(actors))
    for actor in actors:
        key: Any = _Public(Key(f"key-{actor.actor}"))
        made._keys[f"key-{actor.actor}"] = (actor, key)
    return made
