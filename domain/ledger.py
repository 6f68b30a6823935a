"""The ledger: one record a round, hash-chained and signed, in canonical JSON.

A record's bytes are `{"body":BODY,"hash":"…","key":"…","sig":"…"}`: BODY is a `Round` in canonical
JSON (UTF-8, sorted keys, no white space, integers only), `hash` is SHA-256 over BODY's bytes in hex
(BODY holds the previous hash, so the hashes form the chain), `sig` is the Ed25519 signature
of the cell's key over the hash's 32 bytes, in hex, and `key` names that key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Raw, Struct

from domain.facts import AnyFact

GENESIS: Final = "0" * 64
"""The previous hash of a cell's first record, which is round 1."""

ENGINE: Final = 2
"""Version of the decider: re-deciding is promised for the version that a header names."""


class Accepted(Struct, frozen=True, gc=False, omit_defaults=True):
    """A command as intake accepted it: who sent it, where it stood, and its body unchanged."""

    partition: int
    offset: int
    """Position in the cell's input; with `partition` it is unique."""
    id: str
    source: str
    """The producer; (source, id) tells duplicates."""
    type: str
    """Name of the command's model."""
    actor: str
    time_ms: int
    """When the producer sent it, as it says."""
    data: Raw
    """The body, canonical JSON."""
    key: str | None = None
    sig: str | None = None


class Header(Struct, frozen=True, gc=False, omit_defaults=True):
    """All that influences a round besides the state and its commands."""

    round: int
    now_ms: int
    """Never less than in the round before."""
    work: int
    """Work units that the round may spend (placements tried)."""
    engine: int
    quarantined: list[tuple[int, int]] = []
    """(partition, offset) of commands that an operator took out; they are not decided."""


class Refusal(Struct, frozen=True, gc=False):
    """The answer to a command that was not obeyed: a code, the field, and the rule."""

    command: int
    code: str
    field: str
    message: str


class Round(Struct, frozen=True, gc=False):
    """What one round took in and put out."""

    cell: str
    header: Header
    commands: list[Accepted]
    duplicates: list[int]
    """Indexes of commands that had been answered before: same answer, no new facts."""
    refusals: list[Refusal]
    facts: list[AnyFact]
    inputs: dict[str, int]
    """Next offset to read of each input partition, after this round."""
    state: str
    """Digest of the state after the round, in hex."""
    prev: str


class Sealed(Struct, frozen=True, gc=False):
    body: Raw
    hash: str
    key: str
    sig: str


class Head(Struct, frozen=True, gc=False):
    """The last believed record of a cell."""

    round: int = 0
    hash: str = GENESIS


class Signer(Protocol):
    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


class Verifier(Protocol):
    def verify(self, key_id: str, signature: bytes, message: bytes) -> bool:
        """True iff the key is known, may sign for the cell, and made this signature."""
        ...


class BrokenRecord(Exception):
    """A record is not what its chain, hash, signature or form say; `rule` names which."""

    def __init__(self, rule: str, round: int | None, detail: str) -> None:
        super().__init__(f"round {round if round is not None else '?'}: {rule}: {detail}")
        self.rule = rule
        self.round = round
        self.detail = detail


class NewerEngine(BrokenRecord):
    """A sound record of a version after this one, which may say what this one does not know."""

    def __init__(self, outline: Outline) -> None:
        engine = outline.header.engine
        detail = f"written by engine {engine}, and this is engine {ENGINE}: start the new version"
        super().__init__("engine", outline.header.round, detail)
        self.outline = outline


class _Made(Struct, frozen=True, gc=False):
    round: int
    engine: int


class Outline(Struct, frozen=True, gc=False):
    """What every version's records say."""

    cell: str
    header: _Made
    prev: str


_encoder: Final = msgspec.json.Encoder(order="sorted")
_sealed: Final = msgspec.json.Decoder(Sealed, strict=True)
_round: Final = msgspec.json.Decoder(Round, strict=True)
_outline: Final = msgspec.json.Decoder(Outline, strict=True)


def canonical(value: object) -> bytes:
    """Canonical JSON of a Struct or of plain dicts, lists, strings, integers, booleans, None."""
    return _encoder.encode(value)


def digest(body: bytes | memoryview) -> bytes:
    return hashlib.sha256(body).digest()


def seal(round: Round, signer: Signer) -> tuple[bytes, Head]:
    """The record's bytes, and the head that it makes."""
    body = canonical(round)
    hash_ = digest(body)
    record = b'{"body":%b,"hash":"%b","key":%b,"sig":"%b"}' % (
        body,
        hash_.hex().encode(),
        canonical(signer.key_id),
        signer.sign(hash_).hex().encode(),
    )
    return record, Head(round.header.round, hash_.hex())


def unseal(record: bytes, verifier: Verifier | None) -> tuple[Round, Head]:
    """Read one record and check all that it says of itself.

    Raises BrokenRecord with rule form, canonical, hash or signature, and NewerEngine if it is sound
    and of a version after this one. The chain is `extends`'s to check. Without a verifier the
    signature is not checked (another reader has done so).
    """
    try:
        sealed, round = _decode(record)
    except BrokenRecord:
        _raise_if_newer(record, verifier)
        raise
    number = round.header.round
    if round.header.engine > ENGINE:
        _raise_if_newer(record, verifier)
    if canonical(sealed) != record or canonical(round) != bytes(sealed.body):
        raise BrokenRecord("canonical", number, "its bytes are not the canonical ones")
    hash_ = digest(sealed.body)
    if hash_.hex() != sealed.hash:
        raise BrokenRecord("hash", number, "the body does not have the hash that it names")
    if verifier is not None and not _signed(sealed, hash_, verifier):
        raise BrokenRecord("signature", number, f"key {sealed.key!r} did not sign this record")
    return round, Head(number, sealed.hash)


def _raise_if_newer(record: bytes, verifier: Verifier | None) -> None:
    try:
        sealed = _sealed.decode(record)
        outline = _outline.decode(sealed.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    hash_ = digest(sealed.body)
    sound = verifier is None or _signed(sealed, hash_, verifier)
    if outline.header.engine > ENGINE and hash_.hex() == sealed.hash and sound:
        raise NewerEngine(outline)


def read_unchecked(record: bytes) -> tuple[Round, Head]:
    """What a record says, for a reader whose records someone else unseals. Raises BrokenRecord."""
    sealed, round = _decode(record)
    return round, Head(round.header.round, sealed.hash)


def _decode(record: bytes) -> tuple[Sealed, Round]:
    try:
        sealed = _sealed.decode(record)
        return sealed, _round.decode(sealed.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenRecord("form", None, str(error)) from error


def _signed(sealed: Sealed, hash_: bytes, verifier: Verifier) -> bool:
    try:
        signature = bytes.fromhex(sealed.sig)
    except ValueError:
        return False
    # The same signature in other letters would be another record with the same hash.
    return signature.hex() == sealed.sig and verifier.verify(sealed.key, signature, hash_)


def extends(head: Head, round: Round | Outline, cell: str) -> bool:
    """True iff the round is the next one of this cell's chain: only then may it be believed."""
    return round.cell == cell and round.header.round == head.round + 1 and round.prev == head.hash


def as_next(
    record: bytes, head: Head, cell: str, verifier: Verifier | None
) -> tuple[Round, Head] | None:
    """What the record says and the head that it makes, if it is the next one of this cell's chain.

    Raises NewerEngine if a version after this one goes on with the ledger.
    """
    try:
        round, made = unseal(record, verifier)
    except NewerEngine as newer:
        if extends(head, newer.outline, cell):
            raise
        return None
    except BrokenRecord:
        return None
    return (round, made) if extends(head, round, cell) else None


def offsets(inputs: dict[str, int], commands: Sequence[Accepted]) -> dict[str, int]:
    """Next offset of each partition after these commands."""
    after = dict(inputs)
    for command in commands:
        partition = str(command.partition)
        after[partition] = max(after.get(partition, 0), command.offset + 1)
    return after
