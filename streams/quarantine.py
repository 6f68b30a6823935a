"""Commands that an operator took out, by place, in a file that the decider reads when it starts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from domain.ledger import canonical
from streams import files
from streams.rounds import Place


def load(path: Path) -> frozenset[Place]:
    """Raises OSError, ValueError (the file is damaged)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return frozenset()
    try:
        return frozenset(msgspec.json.decode(data, type=list[tuple[int, int]]))
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def add(path: Path, place: Place) -> None:
    files.replace(path, canonical(sorted(load(path) | {place})))
