"""Signed roots of a ledger, and proofs that a stranger checks with the stand-alone script."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aquifer.cli import app
from aquifer.folder import Folder, bulk_ledger
from aquifer.settings import Settings
from aquifer.trust import signer_of
from streams import workload
from streams.simulate import Simulation

SCRIPT = Path(__file__).parents[2] / "docs" / "check_proof.py"
START_MS = 1_735_689_600_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell's folder with the ledger of three hours, and checkpoints after two and three."""
    root = tmp_path_factory.mktemp("cell")
    folder = Folder(root)
    signer = signer_of(Settings(), folder)
    day = workload.day(1, START_MS, 400)
    simulation = Simulation("local", day, signer, len, origin_ms=START_MS)
    with bulk_ledger(folder) as append:
        simulation._append = append
        _run(simulation, 2)
    ask("checkpoint", root / "old.json", root)
    with bulk_ledger(folder) as append:
        simulation._append = append
        _run(simulation, 3)
    ask("checkpoint", root / "new.json", root)
    return root


def _run(simulation: Simulation, hours: int) -> None:
    for _ in simulation.run(START_MS + hours * 3_600_000):
        pass


def ask(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def check(proof: Path, keys: Path) -> bool:
    command = [sys.executable, str(SCRIPT), str(proof), str(keys)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def size(place: Path, name: str) -> int:
    found: int = json.loads((place / name).read_bytes())["checkpoint"]["size"]
    return found


def test_every_record_is_shown_to_be_in_it(place: Path) -> None:
    last = size(place, "new.json")
    for number in {1, 2, last // 2, last - 1, last}:
        out = place / f"round-{number}.json"
        ask("prove", number, place / "new.json", out, place)
        assert check(out, place / "keys.json")


def test_a_newer_checkpoint_only_added(place: Path) -> None:
    assert size(place, "old.json") < size(place, "new.json")
    ask("extend", place / "old.json", place / "new.json", place / "grown.json", place)
    assert check(place / "grown.json", place / "keys.json")


def test_the_root_is_over_exactly_what_is_believed(place: Path) -> None:
    """The same root from an exported file, which has the same records."""
    ask("export", place / "export.ndjson", place)
    ask("prove", 3, place / "new.json", place / "from-export.json", place / "export.ndjson")
    assert check(place / "from-export.json", place / "keys.json")


def _hex(proof: dict[str, Any], rng: random.Random) -> None:
    at = rng.randrange(len(proof["hashes"]))
    proof["hashes"][at] = proof["hashes"][at][::-1]


def _drop(proof: dict[str, Any], rng: random.Random) -> None:
    del proof["hashes"][rng.randrange(len(proof["hashes"]))]


def _record(proof: dict[str, Any], rng: random.Random) -> None:
    at = rng.randrange(len(proof["record"]))
    proof["record"] = proof["record"][:at] + "~" + proof["record"][at + 1 :]


def _index(proof: dict[str, Any], rng: random.Random) -> None:
    proof["index"] += rng.choice((-1, 1))


def _root(proof: dict[str, Any], rng: random.Random) -> None:
    proof["signed"]["checkpoint"]["root"] = "0" * 64


def _size(proof: dict[str, Any], rng: random.Random) -> None:
    proof["signed"]["checkpoint"]["size"] += 1


def _signature(proof: dict[str, Any], rng: random.Random) -> None:
    proof["signed"]["sig"] = proof["signed"]["sig"][::-1]


@pytest.mark.parametrize("change", [_hex, _drop, _record, _index, _root, _size, _signature])
def test_what_was_changed_does_not_hold(
    place: Path, tmp_path: Path, change: Callable[[dict[str, Any], random.Random], None]
) -> None:
    honest = tmp_path / "honest.json"
    ask("prove", 5, place / "new.json", honest, place)
    assert check(honest, place / "keys.json")
    proof = json.loads(honest.read_bytes())
    change(proof, random.Random(1))
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(proof))
    assert not check(forged, place / "keys.json")


def test_a_changed_ledger_gives_no_proof(place: Path, tmp_path: Path) -> None:
    """A checkpoint of another ledger, or of more than the ledger has."""
    signed = json.loads((place / "new.json").read_bytes())
    signed["checkpoint"]["root"] = "0" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(signed))
    assert "another root" in ask("prove", 1, other, tmp_path / "p.json", place, code=1)
    signed["checkpoint"]["size"] += 1000
    other.write_text(json.dumps(signed))
    assert "records" in ask("prove", 1, other, tmp_path / "p.json", place, code=1)
    ask("extend", place / "new.json", place / "old.json", tmp_path / "p.json", place, code=1)


def test_misuse(place: Path, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    ask("prove", 1, tmp_path / "no.json", tmp_path / "p.json", place, code=2)
    ask("checkpoint", place / "old.json", place, code=2)
    ask("prove", 10**6, place / "new.json", tmp_path / "p.json", place, code=1)
