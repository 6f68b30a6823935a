"""A Merkle tree over a ledger's records, as RFC 9162 (section 2.1) defines it.

A leaf is the SHA-256 of 0x00 and the record's bytes, a node that of 0x01 and its two children. A
tree of n leaves splits at the largest power of two below n. So a root commits to every record and
to their order; that a record is in it, or that a longer tree begins with a shorter one, is shown by
some log2(n) hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

EMPTY: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""


def leaf(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


class Level(Protocol):
    """Hashes of subtrees of one size, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...

    def append(self, hash_: bytes, /) -> None: ...


def _new_level(number: int) -> Level:
    return []


class Tree:
    """The tree over all leaves so far; appending costs O(1) on the average, a proof O(log n)."""

    def __init__(self, level: Callable[[int], Level] = _new_level) -> None:
        """`level(k)` opens level k, empty or as it was left; by default in memory."""
        self._open = level
        self._levels = [level(0)]
        """_levels[k][i]: root of the full subtree over leaves i x 2^k up to (i + 1) x 2^k."""
        while 1 << len(self._levels) <= len(self):
            self._levels.append(level(len(self._levels)))

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, hash_: bytes) -> None:
        """Add a leaf by its hash."""
        level = 0
        self._levels[0].append(hash_)
        while len(self._levels[level]) % 2 == 0:
            below = self._levels[level]
            left, right = below[len(below) - 2], below[len(below) - 1]
            level += 1
            if level == len(self._levels):
                self._levels.append(self._open(level))
            self._levels[level].append(node(left, right))

    def root(self, size: int | None = None) -> bytes:
        """Root over the first `size` leaves; over all by default."""
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise ValueError(f"the tree has {len(self)} leaves, not {size}")
        return self._root(0, size) if size else EMPTY

    def _root(self, first: int, size: int) -> bytes:
        level = (size - 1).bit_length()
        if size == 1 << level and first % size == 0:
            return self._levels[level][first // size]
        left = split(size)
        return node(self._root(first, left), self._root(first + left, size - left))

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Hashes that lead from leaf `index` to the root over the first `size` leaves."""
        size = len(self) if size is None else size
        if not 0 <= index < size <= len(self):
            raise ValueError(f"no leaf {index} in a tree of {size}")
        return self._path(index, 0, size)

    def _path(self, index: int, first: int, size: int) -> list[bytes]:
        if size == 1:
            return []
        left = split(size)
        if index < left:
            return [*self._path(index, first, left), self._root(first + left, size - left)]
        below = self._path(index - left, first + left, size - left)
        return [*below, self._root(first, left)]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Hashes that show that the tree of `size` leaves begins with that of `old` leaves."""
        size = len(self) if size is None else size
        if not 0 < old <= size <= len(self):
            raise ValueError(f"no proof from {old} to {size} leaves")
        return self._subproof(old, 0, size, True)

    def _subproof(self, old: int, first: int, size: int, whole: bool) -> list[bytes]:
        if old == size:
            return [] if whole else [self._root(first, size)]
        left = split(size)
        if old <= left:
            below = self._subproof(old, first, left, whole)
            return [*below, self._root(first + left, size - left)]
        below = self._subproof(old - left, first + left, size - left, False)
        return [*below, self._root(first, left)]


def included(record: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """True iff the proof shows that the record is leaf `index` of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, hash_ = index, size - 1, leaf(record)
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash_ = node(sibling, hash_)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hash_ = node(hash_, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and hash_ == root


def consistent(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """True iff the proof shows that the tree begins with the old one (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for hash_ in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node(hash_, first), node(hash_, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, hash_)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == root
