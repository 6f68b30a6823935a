"""The Merkle tree of a ledger in files, so that a proof reads some log2(n) hashes of it.

`level-K` holds the roots of the full subtrees over 2^K leaves, 32 bytes each; `positions` holds the
log position of each leaf's record, 8 bytes each. It is derived from the ledger and may be deleted:
a proof is checked against a signed root before it is handed out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from domain.merkle import Tree

HASH: Final = 32
PLACE: Final = 8


class Column:
    """Values of one size in a file, as a list that grows. Appends are written by `flush`."""

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        self._file = path.open("a+b", buffering=1 << 16)
        self._count = os.fstat(self._file.fileno()).st_size // size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), self._size, index * self._size)

    def append(self, value: bytes) -> None:
        self._file.write(value)
        self._count += 1

    def truncate(self, count: int) -> None:
        self._file.flush()
        self._file.truncate(count * self._size)
        self._count = count

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TreeFile:
    """Opens, or begins, the tree in a directory; one process at a time has it.

    What a crash left half written is cut off.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = (directory / "lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._positions = Column(directory / "positions", PLACE)
        self._columns: list[Column] = []
        for _ in directory.glob("level-*"):
            self._level(len(self._columns))
        size, level = min(len(self._positions), len(self._level(0))), 1
        while 1 << level <= size:  # an upper hash that is missing: its leaves come again
            size = min(size, ((len(self._level(level)) + 1) << level) - 1)
            level += 1
        self._truncate(size)
        self.tree = Tree(self._level)

    def _level(self, number: int) -> Column:
        while len(self._columns) <= number:
            path = self._directory / f"level-{len(self._columns):02}"
            self._columns.append(Column(path, HASH))
        return self._columns[number]

    def __len__(self) -> int:
        return len(self._positions)

    def append(self, leaf: bytes, position: int) -> None:
        self.tree.append(leaf)
        self._positions.append(position.to_bytes(PLACE))

    def position(self, index: int) -> int:
        """Where the leaf's record stands in the log."""
        return int.from_bytes(self._positions[index])

    def leaf(self, index: int) -> bytes:
        return self._level(0)[index]

    def flush(self) -> None:
        for column in self._all():
            column.flush()

    def clear(self) -> None:
        """The ledger is another one: begin anew."""
        self._truncate(0)
        self.tree = Tree(self._level)

    def close(self) -> None:
        for column in self._all():
            column.close()
        self._lock.close()

    def _truncate(self, size: int) -> None:
        self._positions.truncate(size)
        for level, column in enumerate(self._columns):
            column.truncate(size >> level)

    def _all(self) -> Iterator[Column]:
        yield self._positions
        yield from self._columns
