"""Records: what is sealed is read again, and whatever was changed is found."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.evolve import Divergence, evolve
from domain.ledger import (
    ENGINE,
    BrokenRecord,
    Head,
    NewerEngine,
    canonical,
    digest,
    extends,
    offsets,
    seal,
    unseal,
)
from tests.domain.given import Given, job, node
from tests.domain.refusals_test import account


class Key:
    """A real Ed25519 key that signs and verifies."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key_id = f"key-{seed}"

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def verify(self, key_id: str, signature: bytes, message: bytes) -> bool:
        try:
            self._key.public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return key_id == self.key_id


KEY, OTHER = Key(1), Key(2)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def history() -> Given:
    made = Given()
    made.round(account("a", "q"), node("n0"))
    made.round(job("x", slots=8), job("y"))
    made.round(after_s=5)
    return made


ROUND, HEAD = unseal(history().records[1], None)
RECORD, _ = seal(ROUND, KEY)


def broken(record: bytes) -> str:
    with pytest.raises(BrokenRecord) as found:
        unseal(record, KEY)
    return found.value.rule


def test_what_is_sealed_is_read_again() -> None:
    round, head = unseal(RECORD, KEY)
    assert (canonical(round), head) == (canonical(ROUND), HEAD)
    assert seal(round, KEY) == (RECORD, head)


@given(at=st.integers(0, len(RECORD) - 1), byte=st.integers(0, 255))
def test_no_byte_of_a_record_can_be_another(at: int, byte: int) -> None:
    changed = bytearray(RECORD)
    if changed[at] == byte:
        byte ^= 1
    changed[at] = byte
    assert broken(bytes(changed)) in {"form", "canonical", "hash", "signature"}


@given(at=st.integers(0, len(RECORD) - 1), length=st.integers(1, 40))
def test_no_part_of_a_record_can_be_missing_or_twice(at: int, length: int) -> None:
    part = RECORD[at : at + length]
    assert broken(RECORD[:at] + RECORD[at + length :])
    assert broken(RECORD[:at] + part + part + RECORD[at + length :])


def test_each_rule_is_named() -> None:
    forged, _ = seal(ROUND, OTHER)
    assert broken(forged) == "signature"
    assert broken(forged.replace(b"key-2", b"key-1")) == "signature"
    assert broken(RECORD + b"\n") == "canonical"
    assert broken(RECORD.replace(b'{"body":', b'{ "body":')) == "canonical"
    assert broken(b"") == "form"
    assert broken(b"{}") == "form"
    other = replace(ROUND, cell="other")
    body = canonical(ROUND)
    assert broken(RECORD.replace(body, canonical(other))) == "hash"


def test_a_signature_has_one_spelling() -> None:
    sig = json.loads(RECORD)["sig"]
    assert sig != sig.upper()
    assert broken(RECORD.replace(sig.encode(), sig.upper().encode())) == "signature"
    assert broken(RECORD.replace(sig.encode(), b"no hex")) == "signature"


@given(plain)
def test_canonical_json_is_sorted_dense_and_stable(value: Any) -> None:
    encoded = canonical(value)
    kwargs: dict[str, Any] = {"ensure_ascii": False, "sort_keys": True, "separators": (",", ":")}
    assert json.loads(encoded) == json.loads(json.dumps(value, **kwargs))
    assert canonical(msgspec.json.decode(encoded)) == encoded


@given(plain)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: turned(v) for k, v in reversed(part.items())}
        return [turned(p) for p in part] if isinstance(part, list) else part

    assert canonical(turned(value)) == canonical(value)


def test_only_the_next_record_of_the_chain_extends_it() -> None:
    records = [unseal(r, None) for r in history().records]
    heads = [Head(), *(head for _, head in records)]
    for at, head in enumerate(heads):
        for number, (round, _) in enumerate(records):
            assert extends(head, round, "test") == (number == at)
            assert not extends(head, round, "other")
    second = records[1][0]
    assert not extends(heads[1], replace(second, prev="f" * 64), "test")
    hashed = hashlib.sha256(canonical(records[0][0])).hexdigest()
    assert second.prev == hashed == heads[1].hash


def test_a_record_with_another_state_diverges() -> None:
    made, other = history(), Given()
    first, head = unseal(made.records[0], None)
    with pytest.raises(Divergence):
        evolve(other.twin, replace(first, facts=first.facts[:-1]), head)


def test_offsets_are_by_partition_and_never_go_back() -> None:
    made = Given()
    at = [
        replace(made.accept(job("x")), partition=p, offset=o) for p, o in ((0, 4), (1, 2), (0, 3))
    ]
    assert offsets({"0": 1, "7": 9}, at) == {"0": 5, "1": 3, "7": 9}


def newer(signer: Key) -> bytes:
    """A record of an engine after this one, with a fact that this one does not know."""
    body = json.loads(canonical(ROUND))
    body["header"]["engine"] = ENGINE + 1
    body["facts"].append({"type": "NodeDreamt", "of": "sheep"})
    data = canonical(body)
    hash_ = digest(data)
    sealed = {"hash": hash_.hex(), "key": signer.key_id, "sig": signer.sign(hash_).hex()}
    return canonical({"body": msgspec.Raw(data), **sealed})


def test_a_sound_record_of_a_newer_engine_is_told_from_a_broken_one() -> None:
    with pytest.raises(NewerEngine, match="start the new version") as raised:
        unseal(newer(KEY), KEY)
    before = Head(ROUND.header.round - 1, ROUND.prev)
    assert extends(before, raised.value.outline, ROUND.cell)


def test_a_record_of_a_newer_engine_counts_only_with_its_signature() -> None:
    with pytest.raises(BrokenRecord) as raised:
        unseal(newer(OTHER), KEY)
    assert not isinstance(raised.value, NewerEngine)
