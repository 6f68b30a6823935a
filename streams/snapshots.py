"""Snapshots of a cell in a directory. They may be lost or damaged: who reads them verifies."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Final

from streams import files

KEPT: Final = 3

_NAME: Final = re.compile(r"([0-9]{12})-([0-9]{12,20})\.snapshot")


class FileSnapshots:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def save(self, round: int, position: int, state: bytes) -> None:
        name = f"{round:012}-{position:012}.snapshot"
        files.replace(self._directory / name, zlib.compress(state, 1))
        for *_, path in self._kept()[KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self, not_after: int | None = None) -> tuple[int, int, bytes] | None:
        for round, position, path in self._kept():
            if not_after is None or round <= not_after:
                try:
                    return round, position, zlib.decompress(path.read_bytes())
                except (OSError, zlib.error):
                    continue  # an older one will do
        return None

    def _kept(self) -> list[tuple[int, int, Path]]:
        """Newest first."""
        found = []
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None:
                found.append((int(match[1]), int(match[2]), path))
        return sorted(found, reverse=True)
