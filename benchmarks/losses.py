"""A region, a process or a link of three real regions is lost: what stops, and what goes on."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from infra.maven import jars
from tests.faults.trouble_test import ALONE, ROOT


def main(argv: list[str]) -> dict[str, Any]:
    argparse.ArgumentParser(prog="benchmarks losses", description=__doc__).parse_args(argv)
    jars("kafka")  # in there it has no network to get them from
    with tempfile.TemporaryDirectory() as folder:
        command = [*ALONE, sys.executable, "-m", "tests.faults.losses", folder]
        environment = {**os.environ, "AQUIFER_SERVERS": "jvm"}
        made = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found
