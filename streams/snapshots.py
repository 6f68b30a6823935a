"""Snapshots of a cell in a directory. They may be lost or damaged: who reads them verifies."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Final

from streams import files

KEPT: Final = 3
"""Newest ones, for a restart."""
SPACED: Final = 29
"""Older ones, spread over the history, for questions about the past."""

_NAME: Final = re.compile(r"([0-9]{12})-([0-9]{12,20})\.snapshot")


class FileSnapshots:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def save(self, round: int, position: int, state: bytes) -> None:
        name = f"{round:012}-{position:012}.snapshot"
        files.replace(self._directory / name, zlib.compress(state, 1))
        self._thin_out()

    def latest(self, not_after: int | None = None) -> tuple[int, int, bytes] | None:
        for round, position, path in self._kept():
            if not_after is None or round <= not_after:
                try:
                    return round, position, zlib.decompress(path.read_bytes())
                except (OSError, zlib.error):
                    continue  # an older one will do
        return None

    def newest(self) -> int:
        return max((round for round, _ in self.kept()), default=0)

    def kept(self) -> list[tuple[int, int]]:
        """Round and position of each, newest first; one of them may be damaged."""
        return [(round, position) for round, position, _ in self._kept()]

    def _thin_out(self) -> None:
        """Drop those whose neighbours are the closest to each other; never the newest."""
        kept = self._kept()
        while len(kept) > KEPT + SPACED:
            gaps = [
                (kept[n - 1][0] - (kept[n + 1][0] if n + 1 < len(kept) else 0), -n)
                for n in range(KEPT, len(kept))
            ]
            *_, path = kept.pop(-min(gaps)[1])
            path.unlink(missing_ok=True)

    def _kept(self) -> list[tuple[int, int, Path]]:
        """Newest first."""
        found = []
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None:
                found.append((int(match[1]), int(match[2]), path))
        return sorted(found, reverse=True)
