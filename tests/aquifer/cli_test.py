"""The command line as people use it: in processes of its own, with real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from domain.bundles import BUNDLES
from domain.ledger import Head, Round, seal, unseal
from domain.specs import PolicyParameters
from streams.export import FileLog
from streams.keys import FileSigner

ROOT = Path(__file__).parents[2]
CSV = "job,submit_s,gpus,duration_s,partition\n"


class Cli:
    """Runs `aquifer` with a state directory of its own."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith("AQUIFER_")}
        return subprocess.run(
            [sys.executable, "-m", "aquifer", *words],
            cwd=ROOT,
            env={**kept, "AQUIFER_STATE_DIR": str(self.state_dir)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def answer(self, *words: str, stdin: str = "") -> dict[str, Any]:
        """The JSON object of a command that succeeds."""
        done = self(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, dict[str, Any]]:
    """A small generated day, run once, and its report."""
    cli = Cli(tmp_path_factory.mktemp("state"))
    return cli, cli.answer("run", "--once", "--jobs", "120", "--seed", "5")


@pytest.fixture
def exported(day: tuple[Cli, dict[str, Any]], tmp_path: Path) -> Path:
    cli, _ = day
    file = tmp_path / "day.ledger"
    cli.answer("audit", "export", str(file))
    return file


def test_run_once_reports_proves_and_names_its_ledger(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, report = day
    assert report["jobs_submitted"] >= 120
    accounted = ("finished", "refused", "failed", "cancelled", "unfinished")
    assert sum(report[f"jobs_{way}"] for way in accounted) == report["jobs_submitted"]
    assert report["proof"]["intact"]
    assert report["proof"]["decided_again"] == report["rounds"] > 100
    assert Path(report["ledger"]).is_relative_to(cli.state_dir)
    again = cli.answer("audit", "verify", report["ledger"])
    assert again == report["proof"]


def test_a_second_run_goes_to_a_fresh_folder_and_stays_deterministic(
    day: tuple[Cli, dict[str, Any]],
) -> None:
    cli, report = day
    again = Cli(cli.state_dir / "other").answer("run", "--once", "--jobs", "120", "--seed", "5")
    assert again["ledger"] != report["ledger"]
    assert (again["rounds"], again["facts"]) == (report["rounds"], report["facts"])


def test_an_exported_ledger_is_proven_on_its_own(
    day: tuple[Cli, dict[str, Any]], exported: Path, tmp_path: Path
) -> None:
    _, report = day
    elsewhere = Cli(tmp_path / "auditor")
    assert elsewhere.answer("audit", "verify", str(exported)) == report["proof"]


def broken_round(cli: Cli, file: Path) -> int:
    """The round that a failing proof names."""
    done = cli("audit", "verify", str(file), "--json")
    assert done.returncode == 1, done.stderr
    broken = json.loads(done.stdout)["broken"]
    assert f"round {broken['round']}" in done.stderr
    return int(broken["round"])


@pytest.mark.parametrize("line", [0, 57, -2])
def test_one_changed_byte_fails_and_its_round_is_named(
    day: tuple[Cli, dict[str, Any]], exported: Path, line: int
) -> None:
    cli, report = day
    lines = exported.read_bytes().splitlines(keepends=True)
    middle = len(lines[line]) // 2
    changed = bytes([lines[line][middle] ^ 1])
    lines[line] = lines[line][:middle] + changed + lines[line][middle + 1 :]
    exported.write_bytes(b"".join(lines))
    assert broken_round(cli, exported) == (line + 1 if line >= 0 else report["rounds"])


@pytest.mark.parametrize("line", [0, 57, -2])
def test_a_removed_record_fails_and_its_round_is_named(
    day: tuple[Cli, dict[str, Any]], exported: Path, line: int
) -> None:
    cli, report = day
    lines = exported.read_bytes().splitlines(keepends=True)
    del lines[line]
    exported.write_bytes(b"".join(lines))
    assert broken_round(cli, exported) == (line + 1 if line >= 0 else report["rounds"])


def test_a_right_chain_with_a_wrong_key_fails_from_its_first_round(
    day: tuple[Cli, dict[str, Any]], exported: Path, tmp_path: Path
) -> None:
    cli, _ = day
    forger = FileSigner(tmp_path / "forger.pem")
    lines = exported.read_bytes().splitlines()
    head = Head(40, unseal(lines[39], None)[1].hash)
    for i in range(40, len(lines) - 1):
        honest = unseal(lines[i], None)[0]
        fields = {name: getattr(honest, name) for name in Round.__struct_fields__}
        lines[i], head = seal(Round(**{**fields, "prev": head.hash}), forger)
    exported.write_bytes(b"\n".join(lines) + b"\n")
    assert broken_round(cli, exported) == 41
    assert FileLog(exported).end() is not None


def test_a_round_can_be_looked_at(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, report = day
    shown = cli.answer("audit", "show", "2")
    assert shown["body"]["header"]["round"] == 2
    assert "facts:" in cli("audit", "show", "2").stdout
    past = cli("audit", "show", str(report["rounds"] + 1))
    assert past.returncode == 1
    assert "does not reach" in past.stderr


def simulate(cli: Cli, tmp_path: Path, rows: Sequence[str], *more: str) -> dict[str, Any]:
    trace = tmp_path / "trace.csv"
    trace.write_text(CSV + "\n".join(rows) + "\n")
    return cli.answer("simulate", "--trace", str(trace), "--nodes", "p=1,q=1", *more)


@pytest.mark.slow
def test_simulate_reports_every_field_and_its_ledger_holds(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "state")
    rows = ["a,0,8,100,p", "b,1,8,100,p", "c,2,1,50,q", "lost,3,1,10,nowhere"]
    pooled = simulate(cli, tmp_path, rows, "--plot", str(tmp_path / "run.png"))
    apart = simulate(cli, tmp_path, rows, "--apart", "--ledger", str(tmp_path / "apart"))
    expected = {
        "jobs_submitted",
        "jobs_finished",
        "jobs_refused",
        "queue_mean_s",
        "queue_p50_s",
        "queue_p99_s",
        "jct_mean_s",
        "tiers",
        "gpu_utilisation",
        "preemptions",
        "lost_gpu_s",
        "rounds",
        "facts",
        "cpu_s",
        "ledger",
    }
    assert expected <= pooled.keys()
    assert (pooled["jobs_submitted"], pooled["jobs_finished"], pooled["jobs_refused"]) == (4, 3, 1)
    assert apart["queue_mean_s"] > pooled["queue_mean_s"]
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert apart["ledger"] == str(tmp_path / "apart" / "cell.sqlite")
    assert cli.answer("audit", "verify", apart["ledger"])["intact"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "--trace", "none.csv", "--nodes", "p=1"), "none.csv"),
        (("simulate", "--trace", "x.csv"), "either --nodes or --node-list"),
        (("simulate", "--trace", "x.csv", "--nodes", "p=0"), "'p=0' is not PARTITION=COUNT"),
        (("simulate", "--trace", "x.csv", "--nodes", "p=1,p=2"), "'p' stands twice"),
        (("audit", "verify"), "no cell's state"),
        (("audit", "verify", "none"), "none does not exist"),
        (("quarantine", "add", "five"), "PARTITION:OFFSET"),
        (("dead-letters", "list"), "no cell's state"),
    ],
)
def test_what_was_asked_wrongly_exits_with_2_and_says_what(
    tmp_path: Path, words: Sequence[str], message: str
) -> None:
    done = Cli(tmp_path)(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_commands_are_checked_before_they_are_sent(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = day
    wrong = cli("send", "-", stdin='{"type":"CordonNode","nod":"n"}\n')
    assert wrong.returncode == 2
    assert "node: Field required" in wrong.stderr
    unknown = cli("send", "-", stdin='{"type":"Shout"}\n')
    assert unknown.returncode == 2
    assert "'Shout' is none of" in unknown.stderr
    sent = cli.answer("submit", "job-1", "--queue", "search-batch", "--accelerator", "h100")
    assert [s["type"] for s in sent["sent"]] == ["SubmitJob"]


def test_a_job_is_submitted_with_a_deadline(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = day
    words = ("submit", "job-2", "--queue", "search-batch", "--accelerator", "h100", "--hard")
    assert cli(*words).returncode == 2, "hard is a deadline's"
    assert cli.answer(*words, "--finish-in-s", "3600")["sent"]


@pytest.mark.slow
def test_a_bundle_is_a_policy_that_can_be_sent(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = day
    names = [b["bundle"] for b in cli.answer("policy", "bundles")["bundles"]]
    assert names == list(BUNDLES)
    for name in names:
        line = cli("policy", "show", name).stdout
        assert [s["type"] for s in cli.answer("send", "-", stdin=line)["sent"]] == ["SetPolicy"]
        sent = PolicyParameters.model_validate_json(json.dumps(json.loads(line)["parameters"]))
        assert sent == BUNDLES[name]
    assert cli("policy", "show", "none").returncode == 2


@pytest.mark.slow
def test_quarantine_and_doctor_answer(day: tuple[Cli, dict[str, Any]]) -> None:
    cli, _ = day
    assert cli.answer("quarantine", "add", "0:17") == {"quarantined": ["0:17"]}
    assert cli.answer("quarantine", "list") == {"quarantined": ["0:17"]}
    checks = cli.answer("doctor")["checks"]
    assert all(check["ok"] for check in checks)
    assert {"assertions", "signing key", "believed head"} <= {check["check"] for check in checks}


@pytest.mark.slow
def test_regions_in_processes_of_their_own_form_one_pool(tmp_path: Path) -> None:
    report = Cli(tmp_path).answer("run", "--regions", "3", "--once", "--jobs", "60", "--seed", "3")
    assert report["faults"] == []
    assert sum(report["outcomes"].values()) == report["jobs"] == 60
    assert report["hand_offs"] > 0
    assert report["in_flight"] == 0
    for proof in report["regions"].values():
        assert proof["broken"] is None
        assert proof["decided_again"] == proof["rounds"] > 10
    first = Path(report["folder"]) / "region-1"
    cli = Cli(tmp_path)
    regions = {r["region"]: r for r in cli.answer("regions", str(first))["regions"]}
    assert regions.keys() == report["regions"].keys()
    assert regions["region-1"]["free_slots"] == {"h100": 24}, "all is done"
    peers = {p["peer"]: p for p in cli.answer("peers", str(first))["peers"]}
    assert peers.keys() == {"region-2", "region-3"}
    assert all(p["heard_s_ago"] is not None and p["epoch"] for p in peers.values())
    assert all(p["offered"] >= 0 and not p["on_their_way"] for p in peers.values())
    assert isinstance(cli.answer("hand-offs", str(first))["hand_offs"], list)


@pytest.mark.slow
def test_a_pool_runs_to_its_end(tmp_path: Path) -> None:
    done = Cli(tmp_path)("run", "--regions", "3")
    assert done.returncode == 2
    assert "--once" in done.stderr
