"""Checkpoints on a schedule: a cell signs the root of its ledger again and again by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from domain.ledger import canonical
from streams import checkpoints, files
from streams.tree_file import TreeFile

if TYPE_CHECKING:
    from aquifer.folder import Folder
    from domain.ledger import Signer, Verifier
    from streams.reader import Readable


async def keep_signing(
    folder: Folder, log: Readable, cell: str, signer: Signer, verifier: Verifier, period_s: int
) -> None:
    """Until cancelled: a checkpoint into the folder after each period in which rounds were made.

    A file is named after the number of its rounds. With a period of 0 there are none.
    """
    while True:
        await asyncio.sleep(period_s or 3600)
        if period_s:
            await sign_now(folder, log, cell, signer, verifier)


async def sign_now(
    folder: Folder, log: Readable, cell: str, signer: Signer, verifier: Verifier
) -> None:
    file = TreeFile(folder.tree)
    try:
        async for _ in checkpoints.grow_file(file, log, cell, verifier):
            pass
        if not len(file):
            return
        last = await checkpoints.record_at(log, file.position(len(file) - 1))
        grown = checkpoints.Grown(file.tree, checkpoints.time_of(last, verifier))
        signed = checkpoints.sign(checkpoints.checkpoint(cell, grown), signer)
    finally:
        file.close()
    folder.checkpoints.mkdir(exist_ok=True)
    path = folder.checkpoints / f"{signed.checkpoint.size:012}.json"
    if not path.exists():
        files.replace(path, canonical(signed) + b"\n")
