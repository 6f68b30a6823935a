"""One of three real regions is killed whole: seconds until its jobs start again elsewhere."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.failover_test import play


def main(argv: list[str]) -> dict[str, Any]:
    """Raises AssertionError if a job is lost, or ends twice."""
    argparse.ArgumentParser(prog="benchmarks failover", description=__doc__).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return play(Path(folder), 24)
