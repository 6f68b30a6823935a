"""Signed checkpoints of a ledger: a Merkle root over its records, and proofs against it.

Leaf n - 1 is the record of round n. Who kept a checkpoint can be shown, with some log2(n) hashes
and without the ledger, that a record is in it, and that a later checkpoint only added to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from domain.ledger import BrokenRecord, Head, Signer, Verifier, canonical, unseal
from domain.merkle import Tree, consistent, included, leaf
from streams.reader import LedgerReader, Readable
from streams.tree_file import TreeFile

PREFIX: Final = b"aquifer-checkpoint\n"
"""Before the signed bytes: no signature of a record is one of a checkpoint."""


class Checkpoint(Struct, frozen=True):
    cell: str
    size: int
    """Records that the root is over: rounds 1 to `size`."""
    root: str
    """In hex."""
    at_ms: int
    """The last round's time."""


class Signed(Struct, frozen=True):
    """A checkpoint, and the Ed25519 signature over the prefix and its canonical JSON."""

    checkpoint: Checkpoint
    key: str
    sig: str


class Inclusion(Struct, frozen=True):
    """Shows that a record is in a checkpoint."""

    signed: Signed
    index: int
    record: str
    """The record's text: UTF-8 of it is the leaf."""
    hashes: list[str]


class Consistency(Struct, frozen=True):
    """Shows that a newer checkpoint begins with an older one."""

    old: Signed
    new: Signed
    hashes: list[str]


signed_of: Final = msgspec.json.Decoder(Signed, strict=True).decode


class NotOfThisLedger(Exception):
    """The ledger does not have the root that a checkpoint names: one of them was changed."""


def sign(checkpoint: Checkpoint, signer: Signer) -> Signed:
    signature = signer.sign(PREFIX + canonical(checkpoint))
    return Signed(checkpoint, signer.key_id, signature.hex())


def holds(signed: Signed, verifier: Verifier) -> bool:
    """True iff the cell's key signed it."""
    try:
        signature = bytes.fromhex(signed.sig)
    except ValueError:
        return False
    return verifier.verify(signed.key, signature, PREFIX + canonical(signed.checkpoint))


class Grown(Struct):
    """The tree of a ledger that was read, and of one record its text."""

    tree: Tree
    at_ms: int = 0
    record: bytes = b""


async def grow(reader: LedgerReader, keep: int | None = None) -> AsyncIterator[Grown]:
    """Read all believed records into a tree; yields it after each. `keep` is a round to keep."""
    grown = Grown(Tree())
    async for believed in reader.read():
        grown.tree.append(leaf(believed.record))
        grown.at_ms = believed.round.header.now_ms
        if believed.head.round == keep:
            grown.record = believed.record
        yield grown


async def grow_file(
    file: TreeFile, log: Readable, cell: str, verifier: Verifier, signed: Sequence[Signed] = ()
) -> AsyncIterator[int]:
    """Bring the tree in files up to the ledger's end; yields the number of leaves after each.

    If it bears out all of `signed`, nothing is read. If it is of another ledger it begins anew.
    """
    if signed and all(_bears_out(file.tree, each) for each in signed):
        return
    head, position = Head(), -1
    if len(file):
        position = file.position(len(file) - 1)
        record = await record_at(log, position)
        try:
            head = unseal(record, verifier)[1]
        except BrokenRecord:
            head = Head()
        known = file.leaf(len(file) - 1)
        wrong = any(_is_of_another(file.tree, each) for each in signed)
        if wrong or head.round != len(file) or leaf(record) != known:
            file.clear()
            head, position = Head(), -1
    async for believed in LedgerReader(log, cell, verifier, head, position).read():
        file.append(leaf(believed.record), believed.position)
        yield len(file)
    file.flush()


async def record_at(log: Readable, position: int) -> bytes:
    """Empty if there is none."""
    async for found, record in log.read(position):
        return record if found == position else b""
    return b""


def time_of(record: bytes, verifier: Verifier) -> int:
    """The time of a believed record's round."""
    return unseal(record, verifier)[0].header.now_ms


def _bears_out(tree: Tree, signed: Signed) -> bool:
    claim = signed.checkpoint
    return claim.size <= len(tree) and tree.root(claim.size).hex() == claim.root


def _is_of_another(tree: Tree, signed: Signed) -> bool:
    return signed.checkpoint.size <= len(tree) and not _bears_out(tree, signed)


def checkpoint(cell: str, grown: Grown) -> Checkpoint:
    return Checkpoint(cell, len(grown.tree), grown.tree.root().hex(), grown.at_ms)


def inclusion(grown: Grown, round: int, signed: Signed) -> Inclusion:
    """Raises NotOfThisLedger, and ValueError if the checkpoint does not reach the round."""
    _check(grown.tree, signed)
    claim = signed.checkpoint
    hashes = grown.tree.inclusion(round - 1, claim.size)
    root = bytes.fromhex(claim.root)
    assert included(grown.record, round - 1, claim.size, hashes, root), "what is shown holds"
    return Inclusion(signed, round - 1, grown.record.decode(), [h.hex() for h in hashes])


def consistency(grown: Grown, old: Signed, new: Signed) -> Consistency:
    """Raises NotOfThisLedger, and ValueError if `new` is older than `old`."""
    for signed in (old, new):
        _check(grown.tree, signed)
    before, after = old.checkpoint, new.checkpoint
    hashes = grown.tree.consistency(before.size, after.size)
    roots = bytes.fromhex(before.root), bytes.fromhex(after.root)
    holds_ = consistent(before.size, roots[0], after.size, roots[1], hashes)
    assert holds_, "what is shown holds"
    return Consistency(old, new, [h.hex() for h in hashes])


def _check(tree: Tree, signed: Signed) -> None:
    claim = signed.checkpoint
    if claim.size > len(tree):
        rule = f"it is over {claim.size} records, the ledger has {len(tree)}"
    elif tree.root(claim.size).hex() != claim.root:
        rule = f"the ledger's first {claim.size} records have another root"
    else:
        return
    raise NotOfThisLedger(rule)
