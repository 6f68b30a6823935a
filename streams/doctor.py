"""Start-up checks: what is wrong here is told before anything is decided."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from msgspec import Struct

import domain.decide
from domain.ledger import Verifier
from streams.reader import LedgerReader, Readable
from streams.remembered import RememberedHead


class Finding(Struct, frozen=True):
    """One check: its name, whether it passed, and what was seen."""

    name: str
    ok: bool
    detail: str


def check_assertions() -> Finding:
    """An assertion that fails stops the cell before anything is written: they must be on."""
    detail = "on" if __debug__ else "off: start Python without -O and PYTHONOPTIMIZE"
    return Finding("assertions", __debug__, detail)


def check_form() -> Finding:
    """Either form decides the same; it is told because the one takes far less CPU."""
    machine_code = not str(domain.decide.__file__).endswith(".py")
    told = "interpreted; `python -m infra.compiled` makes machine code of it"
    return Finding("decider", True, "machine code" if machine_code else told)


def check_directory(path: Path) -> Finding:
    """Files can be made and kept there."""
    try:
        with tempfile.NamedTemporaryFile(dir=path) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding("state directory", False, f"cannot be written: {error.strerror}")
    return Finding("state directory", True, "can be written")


def check_key(path: Path) -> Finding:
    """The signing key is its owner's alone. A missing one will be made."""
    if not path.exists():
        return Finding("signing key", True, "will be made at the first start")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        detail = f"{path.name} has mode {mode:04o}: others may read it, make it 0600"
        return Finding("signing key", False, detail)
    return Finding("signing key", True, f"{path.name} has mode {mode:04o}")


async def check_head(
    name: str, log: Readable, verifier: Verifier, remembered: RememberedHead
) -> Finding:
    """The log holds the record that was believed last. Reads the log from its start."""
    check = "believed head"
    try:
        head = remembered.read()
    except (OSError, ValueError) as error:
        return Finding(check, False, str(error))
    if head is None:
        return Finding(check, True, "nothing was believed before")
    reader = LedgerReader(log, name, verifier)
    async for believed in reader.read():
        if believed.head.round == head.round:
            if believed.head != head:
                break
            return Finding(check, True, f"round {head.round} is in the log")
    detail = f"round {head.round} was believed, the log's chain shows {reader.head.round} rounds"
    if reader.head.round >= head.round:
        detail = f"the log has another round {head.round} than the one that was believed"
    return Finding(check, False, detail)
