"""Networks, disks and brokers in real trouble: what was acknowledged is decided, and once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.maven import jars
from tests.faults.trouble import TROUBLES

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--map-root-user", "--net", "--mount"]
"""A network and mounts that nobody else has; nothing is asked of the user's rights."""


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.parametrize("kind", TROUBLES)
def test_nothing_is_lost_or_doubled(kind: str, tmp_path: Path) -> None:
    jars("kafka")  # it has no network to get them from
    command = [*ALONE, sys.executable, "-m", "tests.faults.trouble", kind, str(tmp_path)]
    environment = {**os.environ, "AQUIFER_SERVERS": "jvm"}
    made = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert made.returncode == 0, made.stderr[-3000:]
    found = json.loads(made.stdout.splitlines()[-1])
    assert (found["lost"], found["doubled"], found["proven"]) == (0, 0, True)
    assert found["rounds"] > found["rounds_before"] > 0
    assert found["acknowledged"] > 100
