"""Personal data is sealed under its subject's key, and gone with it; all is still proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aquifer.cli import app
from aquifer.folder import Folder, bulk_ledger
from aquifer.settings import Settings
from aquifer.simulate import keep
from aquifer.trust import signer_of
from domain.commands import CancelJob
from streams.scenario import EPOCH_MS, arrival
from streams.simulate import Simulation
from streams.subjects import ERASED, MAX_SEALED, Subjects
from tests.streams.what_if_test import contended

PERSON = "Ada Lovelace <ada@example.org>"
REASON = "asked for by telephone"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AQUIFER_STATE_DIR", str(tmp_path))

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, result.output
        return result.output.strip()

    return run


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_what_is_erased_is_in_no_file_and_all_is_still_proven(tmp_path: Path, call: Any) -> None:
    sealed = call("subjects", "seal", PERSON, REASON)
    handle = call("subjects", "handle", PERSON)
    scenario = contended(1, None)
    job = scenario.arrivals[0].body["job"]
    assert isinstance(job, str)
    scenario.arrivals.insert(1, arrival(0, CancelJob(job=job, reason=sealed)))
    folder = Folder(tmp_path)
    with bulk_ledger(folder) as append:
        signer = signer_of(Settings(), folder)
        simulation = Simulation("c1", scenario, signer, append)
        for _ in simulation.run(EPOCH_MS + 1_500_000):
            pass
    keep(folder, simulation)

    told = json.loads(call("audit", "who", job, "--json"))
    assert REASON in json.dumps(told)
    assert json.loads(call("audit", "verify", "--json").splitlines()[-1])["intact"]
    key = Subjects(tmp_path / "subjects.sqlite")._row("subject", PERSON)
    assert key is not None
    assert key[2] in everything(tmp_path)

    call("subjects", "erase", PERSON)
    told = json.loads(call("audit", "who", job, "--json"))
    assert ERASED in json.dumps(told)
    assert REASON not in json.dumps(told)
    assert json.loads(call("audit", "verify", "--json").splitlines()[-1])["intact"]
    call("explain", job)
    for secret in (REASON.encode(), PERSON.encode(), b"ada@", key[2]):
        assert secret not in everything(tmp_path)
    assert handle != call("subjects", "handle", PERSON), "a new key has a new name"
    call("subjects", "erase", "nobody", code=1)


@pytest.mark.slow
@given(st.text(max_size=400), st.text(max_size=40), st.text(max_size=40))
def test_sealed_texts_open_with_their_own_key_only(
    tmp_path_factory: pytest.TempPathFactory, text: str, one: str, other: str
) -> None:
    text, one, other = (s.encode("utf-8", "replace").decode() for s in (text, one, other))
    subjects = Subjects(tmp_path_factory.mktemp("s") / "subjects.sqlite")
    try:
        sealed = subjects.seal(one, text)
    except ValueError:
        assert len(text.encode()) > 120
        subjects.close()
        return
    assert len(sealed) <= MAX_SEALED
    assert CancelJob(job="j", reason=sealed).reason == sealed
    if text and one != other:
        stolen = sealed.replace(subjects.handle(one)[8:], subjects.handle(other)[8:])
        assert subjects.revealed(stolen) == stolen
    subjects.erase(other)
    if one != other:
        answer = {"a": [sealed, {"b": subjects.handle(one)}], "n": 3}
        named = one if not one.startswith("~") else subjects.revealed(subjects.handle(one))
        assert subjects.revealed(answer) == {"a": [text, {"b": named}], "n": 3}
        subjects.erase(one)
    assert subjects.revealed(sealed) == ERASED
    subjects.close()


def test_what_does_not_fit_is_refused(call: Any) -> None:
    assert "text: sealed it has" in call("subjects", "seal", PERSON, "x" * 200, code=2)
    assert json.loads(call("subjects", "list", "--json"))["subjects"][0]["subject"] == PERSON
