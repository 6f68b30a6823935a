"""The state directory of a cell: what lies where in it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aquifer.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

LEDGER: Final = "cell.sqlite"
RUNS: Final = "runs"
"""Where `aquifer run` makes its folders, in the state directory."""
LATEST: Final = "latest"
"""Link to the newest folder of its kind."""
GROUP: Final = 1000
"""Records of a simulation that share a commit."""


class NoFolder(Misuse):
    """There is no cell's state where it was looked for."""


class Folder:
    """Paths of one cell's state."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = root / LEDGER
        self.signing_key = root / "cell.pem"
        self.ring = root / "keys.json"
        self.snapshots = root / "snapshots"
        self.projector_snapshots = root / "projector"
        self.tree = root / "tree"
        self.checkpoints = root / "checkpoints"
        self.head = root / "head.json"
        self.quarantine = root / "quarantine.json"
        self.read_model = root / "read-model.sqlite"


def fresh(parent: Path) -> Folder:
    """A new folder in `parent`, named after the time, to which `parent`/latest then leads."""
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        root = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            root.mkdir()
        except FileExistsError:
            continue
        _point(parent / LATEST, root.name)
        return Folder(root)
    raise NoFolder(f"no free name in {parent}")


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(f".{LATEST}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target, target_is_directory=True)
    os.replace(temporary, link)


def existing(state_dir: Path) -> Folder:
    """The state in a directory, or of the newest run in it. Raises NoFolder."""
    for root in (state_dir, state_dir / RUNS / LATEST):
        if (root / LEDGER).exists():
            return Folder(root)
    raise NoFolder(f"no cell's state in {state_dir}: start one with `aquifer run`")


@contextmanager
def bulk_ledger(folder: Folder) -> Iterator[Callable[[bytes], int]]:
    """Append to a ledger that nobody else reads yet: fast, and durable only at the end."""
    from streams.sqlite import Database, SqliteLog

    database = Database(folder.ledger, synchronous="OFF", group=GROUP)
    try:
        yield SqliteLog(database).write
    finally:
        database.close()
