"""The Merkle tree beside RFC 9162's definition, and its proofs beside everything else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.merkle import EMPTY, Tree, consistent, included, leaf

records = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def defined(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for record in leaves:
        tree.append(leaf(record))
    return tree


def test_the_empty_tree() -> None:
    assert Tree().root() == EMPTY == defined([])


@given(records)
def test_roots_are_those_of_the_definition(leaves: list[bytes]) -> None:
    tree = tree_of(leaves)
    for size in range(len(leaves) + 1):
        assert tree.root(size) == defined(leaves[:size])


@given(records, st.data())
def test_a_record_is_shown_to_be_where_it_is_and_nowhere_else(
    leaves: list[bytes], data: st.DataObject
) -> None:
    tree = tree_of(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    proof, root = tree.inclusion(index, size), tree.root(size)
    assert included(leaves[index], index, size, proof, root)
    assert not included(leaves[index] + b"x", index, size, proof, root)
    other = data.draw(st.integers(0, len(leaves)))
    if other != index and (other >= size or leaves[other] != leaves[index]):
        assert not included(leaves[index], other, size, proof, root)
    for n in range(len(proof)):
        assert not included(leaves[index], index, size, proof[:n] + proof[n + 1 :], root)
    assert not included(leaves[index], index, size, [*proof, EMPTY], root)


@given(records, st.data())
def test_a_longer_tree_is_shown_to_begin_with_a_shorter_one(
    leaves: list[bytes], data: st.DataObject
) -> None:
    tree = tree_of(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    old = data.draw(st.integers(1, size))
    proof = tree.consistency(old, size)
    assert consistent(old, tree.root(old), size, tree.root(size), proof)
    changed = list(leaves)
    changed[data.draw(st.integers(0, old - 1))] += b"x"
    fork = tree_of(changed)
    assert not consistent(old, tree.root(old), size, fork.root(size), fork.consistency(old, size))
    assert not consistent(old, fork.root(old), size, tree.root(size), proof)
    assert not consistent(old, tree.root(old), size, tree.root(size), [*proof, EMPTY])


def test_what_is_not_there_has_no_proof() -> None:
    tree = tree_of([b"a", b"b"])
    for wrong in (lambda: tree.inclusion(2), lambda: tree.consistency(0), lambda: tree.root(3)):
        with pytest.raises(ValueError, match=r"leaves|leaf"):
            wrong()
