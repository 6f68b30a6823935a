"""The command `what-if`, and the policy that its report lets in."""

from __future__ import annotations

import asyncio
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
from domain.commands import COMMANDS, SetPolicy
from domain.specs import PolicyParameters
from streams.scenario import EPOCH_MS, arrival
from streams.simulate import Simulation
from tests.streams.cells import Site, drain, started
from tests.streams.what_if_test import contended

GATED = PolicyParameters(require_replay=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Folder(tmp_path_factory.mktemp("cell"))
    scenario = contended(1, None)
    scenario.arrivals.insert(0, arrival(0, SetPolicy(parameters=GATED)))
    with bulk_ledger(folder) as append:
        signer = signer_of(Settings(), folder)
        simulation = Simulation("c1", scenario, signer, append)
        for _ in simulation.run():
            pass
    keep(folder, simulation)
    return folder.root


def call(*words: str, fails: bool = False) -> Any:
    result = CliRunner().invoke(app, ["what-if", *words])
    assert bool(result.exit_code) == fails, result.output
    return result


@pytest.mark.slow
def test_the_report_as_json_table_and_plot(root: Path, tmp_path: Path) -> None:
    same = json.loads(call("--ledger", str(root), "--json").stdout.splitlines()[-1])
    assert same["differing_decisions"] == 0
    policy = tmp_path / "policy.json"
    policy.write_text('{"preemption": false}')
    plot = tmp_path / "both.png"
    asked = ("--ledger", str(root), "--policy", str(policy), "--plot", str(plot))
    report = json.loads(call(*asked, "--json").stdout.splitlines()[-1])
    assert report["differing_decisions"] > 0
    assert report["winners"] or report["losers"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = call(*asked).stdout
    assert f"{report['differing_decisions']} decisions differ" in table
    for word in ("queue_mean_s", "lost_slot_s", "broken", "winners"):
        assert word in table


def test_a_part_is_studied_from_a_round_or_a_time(root: Path) -> None:
    asked = ("--ledger", str(root), "--from", "50", "--to", "2025-01-01T01:00:00Z", "--json")
    report = json.loads(call(*asked).stdout.splitlines()[-1])
    first, last = report["rounds"]
    assert first == 50 < last
    assert report["rounds_same_bytes"] == last - first + 1


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--policy", "[]"),
        ("--policy", '{"preemption": 1}'),
        ("--policy", '{"no_such": 1}'),
        ("--quota", '{"type": "CancelJob", "job": "j"}'),
        ("--capacity", '{"type": "RemoveNode"}'),
        ("--capacity", "{"),
    ],
)
def test_what_makes_no_sense_is_said(root: Path, tmp_path: Path, option: str, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    result = CliRunner().invoke(app, ["what-if", "--ledger", str(root), option, str(file)])
    assert result.exit_code
    assert not result.stdout.strip()


def test_a_report_opens_the_gate_once(root: Path, tmp_path: Path) -> None:
    """The command that `--sign` writes is obeyed by the cell whose rounds it replayed."""
    policy, command, worse = (tmp_path / name for name in ("policy.json", "set.json", "worse.json"))
    policy.write_text('{"duplicate_window_s": 700000}')  # no other decision: all gates pass
    call("--ledger", str(root), "--policy", str(policy), "--sign", str(command))
    policy.write_text('{"min_run_s": [0, 0, 0, 0], "queue_delay_s": [0, 1, 1, 1]}')
    call("--ledger", str(root), "--policy", str(policy), "--sign", str(worse))
    report = json.loads((tmp_path / "worse.json.report.json").read_text())
    assert not all(report["gates"].values())
    told = asyncio.run(_sent(root, [worse, command, command]))
    assert told == ["replay_failed", None, "replay_failed"]


async def _sent(root: Path, files: list[Path]) -> list[str | None]:
    """The refusal of each command, in a live cell that takes over the folder."""
    site = Site(root)
    site.clock.ms = EPOCH_MS + 10 * 86_400_000
    try:
        decider = await started(site)
        told: list[str | None] = []
        for file in files:
            body = json.loads(file.read_text())
            sent = COMMANDS[body.pop("type")].model_validate_json(json.dumps(body))
            await site.send(sent)
            (made,) = [r for r in await drain(decider) if r.commands]
            told.append(made.refusals[0].code if made.refusals else None)
        return told
    finally:
        site.database.close()
