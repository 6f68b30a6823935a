"""Networks, disks and brokers in real trouble: what was acknowledged is decided, and once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.maven import jars
from tests.faults.trouble import TROUBLES

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--map-root-user", "--net", "--mount"]
"""A network and mounts that nobody else has; nothing is asked of the user's rights."""
AT_ONCE = 3
"""Each has its own network, disk and servers, and waits most of the time."""

Found = dict[str, Any]


def _play(kind: str, folder: Path) -> Found:
    command = [*ALONE, sys.executable, "-m", "tests.faults.trouble", kind, str(folder)]
    environment = {**os.environ, "AQUIFER_SERVERS": "jvm"}
    made = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert made.returncode == 0, made.stderr[-3000:]
    found: Found = json.loads(made.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def troubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Found]]]:
    jars("kafka")  # they have no network to get them from
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {k: pool.submit(_play, k, tmp_path_factory.mktemp(k)) for k in TROUBLES}


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.parametrize("kind", TROUBLES)
def test_nothing_is_lost_or_doubled(kind: str, troubles: dict[str, Future[Found]]) -> None:
    found = troubles[kind].result()
    assert (found["lost"], found["doubled"], found["proven"]) == (0, 0, True)
    assert found["rounds"] > found["rounds_before"] > 0
    assert found["acknowledged"] > 100
