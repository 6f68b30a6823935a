"""The domain as machine code does what its sources say, and is never that of other sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import compiled
from infra.maven import SetupError
from tests.domain.interpreters import COMPILED, ROOT, ledger_of

HISTORIES = (
    "tests/domain/determinism_test.py",
    "tests/domain/machine_test.py",
    "tests/golden/golden_test.py",
)
"""What they run: all facts and commands, arbitrary histories, restarts, ledgers of old versions."""


@pytest.mark.slow
@pytest.mark.xdist_group("compiled")
def test_machine_code_decides_the_same_bytes() -> None:
    compiled.build()
    assert ledger_of(sys.executable, "0", COMPILED) == ledger_of(sys.executable, "0")


@pytest.mark.slow
@pytest.mark.xdist_group("compiled")
def test_histories_hold_on_machine_code() -> None:
    path = os.pathsep.join([str(compiled.build()), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--override-ini", "pythonpath="]
    told = "from streams import doctor; assert doctor.check_form().detail == 'machine code'"
    for each in ([sys.executable, "-c", told], [*command, "-m", "not slow", *HISTORIES]):
        done = subprocess.run(each, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_a_build_is_of_exactly_these_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUIFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "domain", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sources = tmp_path / "domain"
    sources.mkdir()
    (sources / "cell.py").write_text("ROUNDS = 1\n")
    monkeypatch.setattr(compiled, "_SOURCES", sources)
    assert not compiled.use(), "nothing was built"
    built = compiled.place()
    built.mkdir(parents=True)
    assert compiled.use()
    assert sys.path[0] == str(built)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "domain", sys)
        assert not compiled.use(), "it was imported as it stands"
    (sources / "cell.py").write_text("ROUNDS = 2\n")
    assert not compiled.use(), "what was built is of other sources"
    (sources / "cell.py").write_text("ROUNDS = 1\n")
    (sources / "cell.py").rename(sources / "nodes.py")
    assert not compiled.use(), "what was built has another name"


def test_what_cannot_be_compiled_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUIFER_CACHE", str(tmp_path / "cache"))
    sources = tmp_path / "domain"
    sources.mkdir()
    (sources / "cell.py").write_text("def rounds() -> int:\n    return 'one'\n")
    monkeypatch.setattr(compiled, "_SOURCES", sources)
    with pytest.raises(SetupError, match="Incompatible return value type"):
        compiled.build()
    assert not compiled.place().exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="needs a C compiler"):
        compiled.build()
