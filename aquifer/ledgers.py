"""Where a ledger is read from: a folder or file of the embedded profile, an export, or Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from aquifer.errors import Misuse
from aquifer.folder import LEDGER, Folder, existing
from domain.ledger import BrokenRecord, Head, unseal
from streams.export import FileLog
from streams.keys import KeyRing
from streams.reader import Readable
from streams.remembered import RememberedHead
from streams.snapshots import FileSnapshots

if TYPE_CHECKING:
    from aquifer.settings import Settings


class NoLedger(Misuse):
    """There is no ledger to read, or no keys to check it with."""


class Source(Struct, frozen=True):
    """A ledger, and what is known of it from elsewhere."""

    log: Readable
    cell: str
    verifier: KeyRing
    expected: Head | None
    """A head that it must hold."""
    size: int
    """Records in it, about."""
    file: FileLog | None = None
    """Set if it is an exported file, which has to be whole."""
    snapshots: FileSnapshots | None = None
    """States of the cell that were kept beside it."""
    tree: Path | None = None
    """Where its Merkle tree is kept."""


@asynccontextmanager
async def opened(settings: Settings, path: Path | None, keys: Path | None) -> AsyncIterator[Source]:
    """The ledger at `path`; without one that of the profile. Raises Misuse, OSError."""
    keys = keys or settings.keys
    if path is None and settings.kafka is not None:
        from streams.kafka import KafkaLog

        folder = Folder(settings.state_dir)
        async with KafkaLog(settings.kafka, settings.cell) as log:
            ring, head = _ring(keys or folder.ring), _head(folder)
            kept = _snapshots(folder)
            yield Source(log, settings.cell, ring, head, await log.end(), None, kept, folder.tree)
    elif (folder_or_none := _folder(settings, path)) is not None:
        async with _embedded(folder_or_none, keys) as source:
            yield source
    else:
        assert path is not None, "without a path there is a folder or an exception"
        file = FileLog(path)
        end = file.end()
        ring = _ring(keys or keys_beside(path))
        yield Source(file, await _cell_of(file), ring, end, end.round if end else 0, file)


@asynccontextmanager
async def _embedded(folder: Folder, keys: Path | None) -> AsyncIterator[Source]:
    from streams.sqlite import Database, SqliteLog

    ring, head = _ring(keys or folder.ring), _head(folder)
    database = Database(folder.ledger)
    try:
        log = SqliteLog(database)
        cell = await _cell_of(log)
        yield Source(log, cell, ring, head, await log.end(), None, _snapshots(folder), folder.tree)
    finally:
        database.close()


def _snapshots(folder: Folder) -> FileSnapshots | None:
    return FileSnapshots(folder.snapshots) if folder.snapshots.is_dir() else None


def _folder(settings: Settings, path: Path | None) -> Folder | None:
    """The folder meant; None if the path is that of an exported file."""
    if path is None:
        return existing(settings.state_dir)
    if path.name == LEDGER:
        path = path.parent
    if (path / LEDGER).exists():
        return Folder(path)
    if path.is_dir():
        raise NoLedger(f"{path} holds no {LEDGER}")
    if not path.exists():
        raise NoLedger(f"{path} does not exist")
    return None


def keys_beside(file: Path) -> Path:
    """Where the public keys of an exported file are."""
    return file.with_name(f"{file.name}.keys.json")


def _ring(path: Path) -> KeyRing:
    try:
        return KeyRing.load(path)
    except (OSError, ValueError) as error:
        raise NoLedger(f"no public keys to check the ledger with (--keys): {error}") from error


def _head(folder: Folder) -> Head | None:
    try:
        return RememberedHead(folder.head).read()
    except (ValueError, msgspec.DecodeError) as error:
        raise NoLedger(f"{folder.head} is damaged: {error}") from error


async def _cell_of(log: Readable) -> str:
    """The cell that the first readable record names; whose signature it has is checked later."""
    async for _, record in log.read(0):
        try:
            return unseal(record, None)[0].cell
        except BrokenRecord:
            continue
    return ""
