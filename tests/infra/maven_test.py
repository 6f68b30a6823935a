"""A jar that is not the pinned one is never used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import infra.maven as maven


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pin list with one jar, in a cache of its own, filled as pinned."""
    good = b"the real jar"
    pinned = f"{hashlib.sha256(good).hexdigest()}  tool-1.0.jar\n"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "tool.sha256").write_text(pinned)
    monkeypatch.setattr(maven, "_HERE", tmp_path / "lists")
    monkeypatch.setenv("AQUIFER_CACHE", str(tmp_path / "cache"))
    version = hashlib.sha256(pinned.encode()).hexdigest()[:16]
    folder = tmp_path / "cache" / "jars" / f"tool-{version}"
    folder.mkdir(parents=True)
    (folder / "tool-1.0.jar").write_bytes(good)
    return folder


def test_the_pinned_jars_are_used(cached: Path) -> None:
    assert maven.jars("tool") == cached


def test_a_changed_jar_is_refused_by_name(cached: Path) -> None:
    (cached / "tool-1.0.jar").write_bytes(b"the real jaR")
    with pytest.raises(maven.SetupError, match=r"tool-1\.0\.jar"):
        maven.jars("tool")


def test_an_extra_jar_is_refused_by_name(cached: Path) -> None:
    (cached / "guest-2.jar").write_bytes(b"hello")
    with pytest.raises(maven.SetupError, match=r"guest-2\.jar"):
        maven.jars("tool")


def test_a_missing_jar_is_refused_by_name(cached: Path) -> None:
    (cached / "tool-1.0.jar").unlink()
    with pytest.raises(maven.SetupError, match=r"tool-1\.0\.jar"):
        maven.jars("tool")


def test_without_maven_the_error_says_what_to_install(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cached / "tool-1.0.jar").unlink()
    cached.rmdir()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(maven.SetupError, match="install Maven and JDK 17"):
        maven.jars("tool")


def test_the_pin_lists_name_each_jar_once() -> None:
    for file in (Path(maven.__file__).parent / "jars").glob("*.sha256"):
        rows = [line.split() for line in file.read_text().splitlines()]
        names = [name for _, name in rows]
        assert names == sorted(set(names), key=names.index)
        assert all(len(digest) == 64 for digest, _ in rows)
