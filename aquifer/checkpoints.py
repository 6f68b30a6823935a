"""`aquifer audit checkpoint|prove|extend`: signed roots of a ledger, and proofs against them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aquifer.audit import EVERY, Keys, LedgerPath
from aquifer.output import USAGE, JsonFlag, emit, fail, progress
from domain.ledger import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aquifer.ledgers import Source
    from streams.checkpoints import Consistency, Grown, Inclusion, Signed
    from streams.tree_file import TreeFile

Answer = TypeVar("Answer")
Out = Annotated[Path, typer.Argument(help="File to write.")]
Kept = Annotated[Path, typer.Argument(help="A checkpoint's file.", exists=True)]


def checkpoint(
    out: Out, ledger: LedgerPath = None, keys: Keys = None, as_json: JsonFlag = False
) -> None:
    """Sign a Merkle root over all rounds; whoever keeps the file can be shown proofs later."""
    from aquifer.settings import load
    from aquifer.trust import signer_of
    from streams import checkpoints

    settings = load()
    folder = _folder(settings.state_dir, ledger)
    claim = asyncio.run(_with_tree(checkpoints.checkpoint, ledger, keys, None, ()))
    signed = checkpoints.sign(claim, signer_of(settings, folder))
    _write(out, signed)
    emit(_told(out, signed), as_json)


def prove(
    number: Annotated[int, typer.Argument(metavar="ROUND", min=1, help="Which round.")],
    at: Kept,
    out: Out,
    ledger: LedgerPath = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Show that a round's record is in a checkpoint; docs/check_proof.py checks the file."""
    from streams import checkpoints

    signed = _read(at)

    def show(_: str, grown: Grown) -> Inclusion:
        return checkpoints.inclusion(grown, number, signed)

    try:
        proof = asyncio.run(_with_tree(show, ledger, keys, number, (signed,)))
    except (checkpoints.NotOfThisLedger, ValueError) as error:
        fail(f"{at.name}: {error}")
    _write(out, proof)
    emit({"file": str(out), "round": number, "hashes": len(proof.hashes)}, as_json)


def extend(
    old: Kept,
    new: Kept,
    out: Out,
    ledger: LedgerPath = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Show that a newer checkpoint only added to an older one."""
    from streams import checkpoints

    before, after = _read(old), _read(new)

    def show(_: str, grown: Grown) -> Consistency:
        return checkpoints.consistency(grown, before, after)

    try:
        proof = asyncio.run(_with_tree(show, ledger, keys, None, (before, after)))
    except (checkpoints.NotOfThisLedger, ValueError) as error:
        fail(str(error))
    _write(out, proof)
    emit({"file": str(out), "hashes": len(proof.hashes)}, as_json)


def _folder(state_dir: Path, ledger: Path | None) -> Any:
    from aquifer.folder import LEDGER, Folder, existing

    if ledger is None:
        return existing(state_dir)
    root = ledger.parent if ledger.name == LEDGER else ledger
    if not (root / LEDGER).exists():
        fail(f"{ledger} is no cell's folder: only with the cell's key can a root be signed", USAGE)
    return Folder(root)


def _read(path: Path) -> Signed:
    import msgspec

    from streams.checkpoints import signed_of

    try:
        return signed_of(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        fail(f"{path} is no checkpoint: {error}", USAGE)


def _write(path: Path, value: object) -> None:
    try:
        with path.open("xb") as file:
            file.write(canonical(value) + b"\n")
    except FileExistsError:
        fail(f"{path} exists", USAGE)


def _told(out: Path, signed: Signed) -> dict[str, Any]:
    claim = signed.checkpoint
    return {"file": str(out), "cell": claim.cell, "rounds": claim.size, "root": claim.root}


async def _with_tree(
    answer: Callable[[str, Grown], Answer],
    ledger: Path | None,
    keys: Path | None,
    keep: int | None,
    signed: Sequence[Signed],
) -> Answer:
    """An answer from the cell's name and the tree over all that is believed, or that was signed."""
    from aquifer import ledgers, settings
    from domain.merkle import Tree
    from streams.checkpoints import Grown, grow
    from streams.reader import LedgerReader
    from streams.tree_file import TreeFile

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        if source.tree is not None:
            file = TreeFile(source.tree)
            try:
                return answer(source.cell, await _from_files(source, file, keep, signed))
            finally:
                file.close()
        grown = Grown(Tree())
        with progress("reading the ledger") as tell:
            async for grown in grow(LedgerReader(source.log, source.cell, source.verifier), keep):
                if len(grown.tree) % EVERY == 0:
                    tell(len(grown.tree), max(len(grown.tree), source.size))
        return answer(source.cell, grown)


async def _from_files(
    source: Source, file: TreeFile, keep: int | None, signed: Sequence[Signed]
) -> Grown:
    """The tree that is kept beside the ledger, brought up to date if that is needed."""
    from streams.checkpoints import Grown, grow_file, record_at, time_of

    with progress("reading the ledger") as tell:
        async for size in grow_file(file, source.log, source.cell, source.verifier, signed):
            if size % EVERY == 0:
                tell(size, max(size, source.size))
    grown = Grown(file.tree)
    if len(file):
        last = await record_at(source.log, file.position(len(file) - 1))
        grown.at_ms = time_of(last, source.verifier)
    if keep is not None and keep <= len(file):
        grown.record = await record_at(source.log, file.position(keep - 1))
    return grown


COMMANDS = (checkpoint, prove, extend)
"""Of `aquifer audit`."""
