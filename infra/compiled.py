"""The domain as machine code: its own sources through mypyc, less CPU for the same bytes.

`python -m infra.compiled` compiles, which takes mypy, a C compiler and a minute or two. `use` has a
process import the result. A build is named by the sources it is of: after an edit there is none.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from infra.maven import SetupError, cache_dir

_SOURCES: Final = Path(__file__).resolve().parent.parent / "domain"
_FOLDERS: Final = (".", "policies", "preemption")
"""The pool of regions is left as it is: a round has little to do with it."""
_LEFT_OUT: Final = frozenset(
    (
        *("commands", "documents", "facts", "fact", "ledger", "maintenance_commands", "ports"),
        *("specs", "__init__"),  # structs and models, which are compiled code already
        *("checker", "syntax"),  # mypyc does not know all that they say; policies are read once
    )
)
_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup

modules = mypycify(
    ["--config-file=", "--strict", "--explicit-package-bases", *sys.argv[1:]],
    opt_level="1",
    debug_level="0",
    multi_file=True,
)
options = ["--quiet", "build_ext", "--inplace"]
setup(name="domain", packages=[], ext_modules=modules, script_args=options)
"""
"""-O1: more takes twice as long and gains nothing, for the time goes into Python's own library. One
library, for calls within it are cheaper than those between two; of many files, or it takes longer.
"""


def use() -> bool:
    """Have `domain` imported as machine code, if there is a build and it was not imported yet.

    Returns whether it will be.
    """
    folder = place()
    if "domain" in sys.modules or not folder.is_dir():
        return False
    sys.path.insert(0, str(folder))
    return True


def build() -> Path:
    """The folder that holds `domain` as machine code, compiled if need be.

    Raises SetupError if mypy or a C compiler is missing, or fails.
    """
    folder = place()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _check_compiler()
            _compile(folder)
    return folder


def _check_compiler() -> None:
    """Of the C compiler that extensions of this Python are compiled with, before it is needed."""
    command = str(sysconfig.get_config_var("CC") or "cc").split()
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if shutil.which(command[0]) is None or not headers.is_file():
        raise SetupError(
            "the domain stays interpreted: compiling it needs a C compiler and the headers of "
            "Python (on Debian: build-essential and python3-dev)"
        )


def _compile(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        fresh = Path(parent) / "fresh"
        for source in _sources():
            copy = fresh / "domain" / source.relative_to(_SOURCES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        files = [
            str(Path("domain") / s.relative_to(_SOURCES))
            for s in _sources()
            if s.stem not in _LEFT_OUT and str(s.parent.relative_to(_SOURCES)) in _FOLDERS
        ]
        command = [sys.executable, "-c", _BUILD, *files]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-4000:]
            raise SetupError(f"the domain could not be compiled:\n{said}")
        for left in ("build", ".mypy_cache"):
            shutil.rmtree(fresh / left)
        fresh.rename(folder)


def _sources() -> list[Path]:
    return sorted(_SOURCES.rglob("*.py"))


def place() -> Path:
    """The folder of the build, if there is one: named by all that it depends on."""
    hash_ = hashlib.sha256(Path(__file__).read_bytes())
    hash_.update(str(sysconfig.get_config_var("SOABI")).encode())
    for source in _sources():
        hash_.update(source.relative_to(_SOURCES).as_posix().encode() + b"\n")
        hash_.update(source.read_bytes())
    return cache_dir() / "domain" / hash_.hexdigest()[:16]


if __name__ == "__main__":
    try:
        print(build())
    except SetupError as error:
        sys.exit(str(error))
