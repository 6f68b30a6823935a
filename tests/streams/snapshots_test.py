"""Snapshots and other small files: replaced whole, and damage is survived."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.ledger import Head
from streams import files, quarantine
from streams.remembered import RememberedHead
from streams.snapshots import KEPT, FileSnapshots


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    snapshots = FileSnapshots(tmp_path / "s")
    assert snapshots.latest() is None
    for round in range(1, 8):
        snapshots.save(round, 10 * round, b"state %d" % round * 100)
    assert snapshots.latest() == (7, 70, b"state 7" * 100)
    assert snapshots.latest(6) == (6, 60, b"state 6" * 100)
    assert snapshots.latest(4) is None
    assert len(list((tmp_path / "s").iterdir())) == KEPT


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
