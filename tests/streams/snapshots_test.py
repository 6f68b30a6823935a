"""Snapshots and other small files: replaced whole, and damage is survived."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from domain.ledger import Head
from streams import files, quarantine
from streams.remembered import RememberedHead
from streams.snapshots import KEPT, SPACED, FileSnapshots


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    snapshots = FileSnapshots(tmp_path / "s")
    assert snapshots.latest() is None
    last = 4 * (KEPT + SPACED)
    for round in range(1, last + 1):
        snapshots.save(round, 10 * round, b"state %d" % round)
    for round in range(last, last - KEPT, -1):
        assert snapshots.latest(round) == (round, 10 * round, b"state %d" % round)
    kept = sorted(int(path.name[:12]) for path in (tmp_path / "s").iterdir())
    assert len(kept) == KEPT + SPACED
    gaps = [after - before for before, after in pairwise([0, *kept])]
    assert max(gaps) <= 4 * last / len(kept), "those of the past are spread over it"


def test_other_files_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    snapshots = FileSnapshots(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    snapshots.save(1, 1, b"one")
    snapshots.save(2, 2, b"two")
    (tmp_path / "000000000002-000000000002.snapshot").write_bytes(b"damaged")
    assert snapshots.latest() == (1, 1, b"one")


def test_the_remembered_head(tmp_path: Path) -> None:
    remembered = RememberedHead(tmp_path / "head.json")
    assert remembered.read() is None
    for round in (1, 2):
        remembered.write(Head(round, "ab" * 32))
        assert remembered.read() == Head(round, "ab" * 32)
    (tmp_path / "head.json").write_bytes(b"{")
    with pytest.raises(ValueError, match="damaged"):
        remembered.read()


def test_the_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.json"
    assert quarantine.load(path) == frozenset()
    for place in ((0, 7), (0, 3), (0, 7)):
        quarantine.add(path, place)
    assert quarantine.load(path) == {(0, 3), (0, 7)}
    path.write_bytes(b"[7]")
    with pytest.raises(ValueError, match="damaged"):
        quarantine.load(path)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace(path, b"one")
    with path.open("rb") as reader:
        files.replace(path, b"two")
        assert reader.read() == b"one"
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
