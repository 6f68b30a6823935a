"""The cell's name, and its topics on the simulated cluster."""

from __future__ import annotations

from typing import Final

CELL: Final = "c"
BUS: Final = "simulated"
"""Address of the cluster."""

TOPICS: Final = {
    f"cmd.{CELL}": 2,
    f"accepted.{CELL}": 1,
    f"dead.{CELL}": 1,
    f"ledger.{CELL}": 1,
    f"dispatch.{CELL}": 1,
}
"""Partitions by topic."""
