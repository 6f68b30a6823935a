"""`aquifer policy`: documents are checked, tested, compared, sent and explained."""

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
from domain.commands import SetQuota
from domain.policies import cases, lifecycle, validation
from domain.policies.documents import PolicyDocument
from domain.policies.objectives import OBJECTIVES
from domain.specs import Queue, Tier
from streams.simulate import Simulation
from tests.aquifer.cli_test import Cli
from tests.domain.given import Given, job, node
from tests.domain.policy_given import in_force, policy, rule
from tests.streams.what_if_test import contended

FREEZE = policy(rule("freeze", "guard", "deny", when="job.tier == 'basic'"))


def call(*words: str, fails: bool = False) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert bool(result.exit_code) == fails, result.output
    return result


def written(folder: Path, document: PolicyDocument | dict[str, Any], name: str = "p.json") -> str:
    file = folder / name
    if isinstance(document, PolicyDocument):
        document = document.model_dump(mode="json", exclude_defaults=True)
    file.write_text(json.dumps(document))
    return str(file)


def test_lint_says_where_and_what_is_meant(tmp_path: Path) -> None:
    wrong = rule("r", "guard", "deny", when="job.slots > 8 &&\n  job.teir == 'basic'")
    result = call("policy", "lint", written(tmp_path, policy(wrong)), "--json", fails=True)
    (row,) = json.loads(result.stdout)["policies"]
    assert not row["ok"]
    meant = "line 2, column 3: unknown attribute job.teir: did you mean job.tier?"
    assert row["says"] == f"rules.0.r.when: {meant}"
    assert json.loads(call("policy", "lint", written(tmp_path, FREEZE), "--json").stdout)


def test_the_tests_of_a_document_are_run(tmp_path: Path) -> None:
    given = {"job.tier": "basic"}
    document = FREEZE.model_dump(mode="json")
    cases_ = [
        {"test": "right", "phase": "guard", "given": given, "expect": {"deny": True}},
        {"test": "wrong", "phase": "guard", "given": {}, "expect": {"deny": True}},
    ]
    file = written(tmp_path, {**document, "tests": cases_})
    found = json.loads(call("policy", "test", file, "--json", fails=True).stdout)["tests"]
    assert [row["ok"] for row in found] == [True, False]
    refused = call("policy", "lint", file, fails=True)
    assert "deny: expected True, found nothing" in refused.stdout


def test_a_difference_is_told_by_rule(tmp_path: Path) -> None:
    other = policy(
        rule("freeze", "guard", "deny", when="job.tier != 'premium'"),
        rule("more", "order", "boost", 3),
        version=2,
    )
    files = (written(tmp_path, FREEZE), written(tmp_path, other, "other.json"))
    found = json.loads(call("policy", "diff", *files, "--json").stdout)["differences"]
    assert [(d["part"], d["name"]) for d in found] == [
        ("rules", "freeze"),
        ("rules", "more"),
        ("version", ""),
    ]


@pytest.mark.slow
def test_a_policy_is_activated_explained_and_rolled_back(tmp_path: Path) -> None:
    """Through processes: a cell that runs once takes what was sent and shows what holds."""
    cli = Cli(tmp_path / "cell")
    cli.answer("run", "--once", "--jobs", "120", "--seed", "5")
    boost = rule("all", "order", "boost", 7, reason="because")
    file = written(tmp_path, policy(boost))
    sent = cli.answer("policy", "activate", file, "--reason", "try")["sent"]
    assert [s["type"] for s in sent] == ["DraftPolicy", "ActivatePolicy"]
    again = cli("policy", "activate", "p")
    assert again.returncode == 2
    assert "give --version" in again.stderr
    assert cli.answer("policy", "rollback", "p")["sent"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_valid_and_may_be_switched_by_a_condition(name: str, tmp_path: Path) -> None:
    document = OBJECTIVES[name]
    cases.run(document, validation.trees_of(document))
    when = "signal.hour >= 20 || signal.reported['objective'] == 2"
    printed = call("policy", "objective", name, "--when", when).stdout
    made = PolicyDocument.model_validate_json(printed)
    assert made == document.model_copy(update={"when": when})
    call("policy", "objective", name, "--when", "signal.our > 3", fails=True)


def test_the_defaults_promise_what_the_parameters_do() -> None:
    given = Given()
    given.round(*in_force())
    defaults = OBJECTIVES["tier-promises"]
    given.round(*in_force(*defaults.rules, name="tier-promises", params=defaults.params))
    given.round(SetQuota(account="a", queues=(Queue(queue="q"),)), node("n"))
    given.round(*(job(str(t), tier=t) for t in Tier), work=0)
    promised = given.cell.policy.queue_delay_s
    shapes = given.cell.shapes.values()
    assert {s.tier: s.ruling.patience_s for s in shapes} == dict(enumerate(promised))


def test_what_if_a_document_counted(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    folder = Folder(tmp_path / "cell")
    scenario = contended(1, None)
    with bulk_ledger(folder) as append:
        signer = signer_of(Settings(), folder)
        simulation = Simulation("c1", scenario, signer, append)
        for _ in simulation.run():
            pass
    keep(folder, simulation)
    never = rule("never", "remedy", "deny")
    file, signed = written(tmp_path, policy(never)), tmp_path / "replay.json"
    asked = ("--ledger", str(folder.root), "--rules", file, "--sign", str(signed), "--json")
    report = json.loads(call("what-if", *asked).stdout.splitlines()[-1])
    assert report["differing_decisions"] > 0
    command = json.loads(signed.read_text())
    assert (command["type"], command["policy"], command["version"]) == ("ReplayPolicy", "p", 1)
    assert command["replay"]["parameters"] == lifecycle.digest_of(policy(never))
