"""`audit as-of`, `diff` and `export`: the past, and the ledger as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aquifer.cli import app
from aquifer.folder import Folder, bulk_ledger
from aquifer.settings import Settings
from aquifer.trust import signer_of
from domain.facts import JobAdmitted
from domain.ledger import Round, unseal
from streams import workload
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Round]]:
    folder = Folder(tmp_path_factory.mktemp("cell"))
    records: list[bytes] = []
    with bulk_ledger(folder) as append:

        def keep(record: bytes) -> None:
            append(record)
            records.append(record)

        signer = signer_of(Settings(), folder)
        simulation = Simulation("local", workload.day(4, EPOCH_MS, 200), signer, keep)
        for _ in simulation.run(EPOCH_MS + 5 * 3_600_000):
            pass
    return folder.root, [unseal(record, None)[0] for record in records]


def ask(*words: object) -> Any:
    result = CliRunner().invoke(app, ["audit", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_as_of_is_get_at_a_moment(
    past: tuple[Path, list[Round]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, rounds = past
    monkeypatch.setenv("AQUIFER_STATE_DIR", str(root))
    moment = len(rounds) // 2
    got = CliRunner().invoke(app, ["get", "nodes", "--at", str(moment), "--json"])
    assert ask("as-of", moment, "nodes")["items"] == json.loads(got.stdout)["items"]
    assert ask("as-of", moment)["round"] == moment


def test_diff_tells_what_the_facts_between_changed(past: tuple[Path, list[Round]]) -> None:
    root, rounds = past
    before, after = len(rounds) // 3, 2 * len(rounds) // 3
    assert ask("diff", before, before, root)["changes"] == []
    changes = ask("diff", before, after, root)["changes"]
    jobs = {c["name"]: c for c in changes if c["entity"] == "jobs"}
    submitted = {
        json.loads(bytes(round.commands[fact.command].data))["job"]
        for round in rounds[before:after]
        for fact in round.facts
        if isinstance(fact, JobAdmitted)
    }
    added = {name for name, change in jobs.items() if change["change"] == "added"}
    assert added
    assert added <= submitted
    back = ask("diff", after, before, root)["changes"]
    assert {c["name"] for c in back if c["change"] == "removed" and c["entity"] == "jobs"} == added
    for change in changes:
        for old, new in change["fields"].values():
            assert old != new


@pytest.mark.slow
def test_facts_as_rows_are_those_of_the_ledger(
    past: tuple[Path, list[Round]], tmp_path: Path
) -> None:
    from pyarrow import parquet

    root, rounds = past
    lines, table = tmp_path / "facts.ndjson", tmp_path / "facts.parquet"
    facts = [(round.header.round, type(f).__name__) for round in rounds for f in round.facts]
    assert ask("export", lines, root, "--format", "ndjson")["facts"] == len(facts)
    assert ask("export", table, root, "--format", "parquet")["facts"] == len(facts)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(row["round"], row["fact"]) for row in rows] == facts
    assert parquet.read_table(table).to_pylist() == rows
    accounts = {row["account"] for row in rows} - {""}
    assert len(accounts) > 2
    for account in accounts:
        file = tmp_path / f"{account}.ndjson"
        ask("export", file, root, "--format", "ndjson", "--account", account)
        own = [json.loads(line) for line in file.read_text().splitlines()]
        assert own == [row for row in rows if row["account"] == account]
    jobs = [row for row in rows if row["fact"] in ("AttemptStarted", "JobFinished", "JobAdmitted")]
    assert jobs
    assert all(row["account"] and row["job"] for row in jobs)


def test_what_cannot_be_proven_in_parts_is_not_exported_so(
    past: tuple[Path, list[Round]], tmp_path: Path
) -> None:
    words = ["audit", "export", str(tmp_path / "x"), str(past[0]), "--account", "a"]
    assert CliRunner().invoke(app, words).exit_code == 2
