"""Regions in networks of their own, cut apart in every way: no job is lost, none is run by two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.maven import jars
from tests.faults.partitions import STEPS
from tests.faults.trouble_test import ALONE, ROOT


@pytest.mark.servers
@pytest.mark.slow
def test_regions_that_are_cut_apart_lose_nothing_and_go_on(tmp_path: Path) -> None:
    jars("kafka")  # it has no network to get them from
    command = [*ALONE, sys.executable, "-m", "tests.faults.partitions", str(tmp_path)]
    environment = {**os.environ, "AQUIFER_SERVERS": "jvm"}
    made = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800
    )
    assert made.returncode == 0, made.stderr[-3000:]
    found = json.loads(made.stdout.splitlines()[-1])
    assert found["faults"] == []
    assert found["outcomes"] == {"JobFinished": found["jobs"]}
    assert all(found["proven"])
    assert found["hand_offs"] > 0
    assert {step for steps in found["killed_at"].values() for step in steps} == set(STEPS)
    assert all(rounds > 0 for phase in found["phases"] for rounds in phase["rounds"].values())
    for name in found["killed_at"]:
        assert sum(phase["started"][name] for phase in found["phases"]) > 0, name
