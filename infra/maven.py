"""Jars of the real servers: fetched from Maven once, checked against the committed checksums."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent / "jars"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class SetupError(RuntimeError):
    """A real server cannot be started here; the message says what to install or delete."""


def cache_dir() -> Path:
    """$AQUIFER_CACHE, else $XDG_CACHE_HOME/aquifer, else ~/.cache/aquifer."""
    named = os.environ.get("AQUIFER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aquifer"


def jars(name: str) -> Path:
    """The folder that holds exactly the jars of infra/jars/NAME.sha256, fetched if need be.

    Raises SetupError when Maven is missing or fails, or when one jar is not the pinned one.
    """
    pinned = (_HERE / f"{name}.sha256").read_text(encoding="ascii")
    # The folder is named by the pin list, so a new pin never meets the jars of an old one.
    version = hashlib.sha256(pinned.encode()).hexdigest()[:16]
    folder = cache_dir() / "jars" / f"{name}-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(name, pinned, folder)
        _verify(folder, pinned)
    return folder


def _fetch(name: str, pinned: str, folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise SetupError(
            f"the {name} server needs Maven (`mvn`) to fetch its jars: install Maven and JDK 17, "
            "or start a Docker engine"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        fresh = Path(parent) / "jars"
        command = ["mvn", "-q", "-B", "-f", str(_HERE / f"{name}.pom.xml"), _PLUGIN]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f"Maven could not fetch the {name} jars:\n{done.stdout[-4000:]}")
        _verify(fresh, pinned)
        fresh.rename(folder)


def _verify(folder: Path, pinned: str) -> None:
    expected = {line.split()[1]: line.split()[0] for line in pinned.splitlines()}
    found = {jar.name: _sha256(jar) for jar in sorted(folder.iterdir())}
    wrong = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if wrong:
        raise SetupError(
            f"jars in {folder} are not the pinned ones: {', '.join(wrong)}. "
            "Nothing was started. If the cache is damaged, delete that folder"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
