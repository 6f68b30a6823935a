"""`aquifer forecast` and `aquifer submit --dry-run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aquifer.cli import app
from aquifer.folder import Folder, bulk_ledger
from aquifer.settings import Settings
from aquifer.simulate import keep
from aquifer.trust import signer_of
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation
from tests.streams.what_if_test import contended


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation]:
    """A cell whose records end while jobs wait."""
    folder = Folder(tmp_path_factory.mktemp("cell"))
    with bulk_ledger(folder) as append:
        signer = signer_of(Settings(), folder)
        simulation = Simulation("c1", contended(1, None), signer, append)
        for _ in simulation.run(EPOCH_MS + 1_500_000):
            pass
    keep(folder, simulation)
    return folder.root, simulation


def call(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    monkeypatch.setenv("AQUIFER_STATE_DIR", str(root))
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def as_json(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    code, text = call(root, monkeypatch, *words, "--json")
    assert code == 0, text
    return json.loads(text.splitlines()[-1])


def test_each_shape_that_waits_has_an_expected_start(
    cell: tuple[Path, Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, simulation = cell
    shapes = {s.id for s in simulation.cell.shapes.values() if s.waiting}
    found = as_json(root, monkeypatch, "forecast", "--ledger", str(root))
    rows = {row["job"]: row for row in found["jobs"]}
    assert {simulation.cell.jobs[name].shape.id for name in rows} == shapes
    assert sum(row["alike"] for row in rows.values()) >= len(rows)
    assert all(row["starts"] and row["in_s"] >= 0 and row["nodes"] for row in rows.values())
    name = next(iter(rows))
    assert as_json(root, monkeypatch, "forecast", name, "--ledger", str(root))["jobs"] == [
        rows[name]
    ]
    code, text = call(root, monkeypatch, "forecast", "--ledger", str(root))
    assert code == 0
    assert name in text
    code, text = call(root, monkeypatch, "forecast", "nobody")
    assert code == 1
    assert "nobody" in text


def test_a_dry_run_tells_and_sends_nothing(
    cell: tuple[Path, Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, simulation = cell
    queue = min(simulation.cell.queues)
    accelerator = next(iter(simulation.cell.fabric.classes.values())).accelerator
    asked = ("submit", "new", "--accelerator", accelerator, "--dry-run", "--queue")
    row = as_json(root, monkeypatch, *asked, queue, "--slots", "8", "--tier", "premium")
    assert row["in_s"] is not None
    assert row["nodes"]
    code, text = call(root, monkeypatch, *asked, "nowhere")
    assert code == 1
    assert "queue" in text
    code, text = call(root, monkeypatch, *asked, queue, "--url", "http://127.0.0.1:1")
    assert code == 2
    code, text = call(root, monkeypatch, "explain", "new")
    assert code != 0
