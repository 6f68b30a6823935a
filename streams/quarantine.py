"""Commands that an operator took out, by place, in a file that the decider reads when it starts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from domain.ledger import canonical
from streams import files
from streams.rounds import Place


def load(path: Path) -> frozenset[Place]:
    """Raises OSError, msgspec.DecodeError (a damaged file)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return frozenset()
    return frozenset(msgspec.json.decode(data, type=list[tuple[int, int]]))


def add(path: Path, place: Place) -> None:
    files.replace(path, canonical(sorted(load(path) | {place})))
