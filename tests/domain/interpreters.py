"""`python -m tests.domain.interpreters`: the same hour, decided by several interpreters.

Prints one line for each: its SHA-256 of the ledger of the scripted hour, and its name. The
interpreters are this one, under several hash seeds, and those that AQUIFER_INTERPRETERS names:
paths separated by colons, each of a Python that has the domain's dependencies. If the domain was
compiled (`infra.compiled`), its machine code is one more. Fails unless all ledgers are the same
bytes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from infra import compiled

ROOT = Path(__file__).parents[2]
SEEDS = ("0", "1", "2", "4294967295")
DECIDE = "decide"
COMPILED = "decide-compiled"


def others() -> list[str]:
    return [p for p in os.environ.get("AQUIFER_INTERPRETERS", "").split(os.pathsep) if p]


def ledger_of(python: str, seed: str, how: str = DECIDE) -> str:
    """SHA-256 of the ledger as another process decides it."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "tests.domain.interpreters", how]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def all_ledgers() -> dict[str, str]:
    """By interpreter and seed."""
    pythons = [sys.executable, *others()]
    return {f"{p} with hash seed {s}": ledger_of(p, s) for p in pythons for s in SEEDS}


def _decide() -> str:
    from tests.golden.make import text_of
    from tests.golden.script import Hour

    hour = Hour()
    hour.run()
    return hashlib.sha256(text_of(hour)).hexdigest()


def main() -> int:
    found = all_ledgers()
    if compiled.place().is_dir():
        found["machine code"] = ledger_of(sys.executable, "0", COMPILED)
    for name, ledger in found.items():
        print(ledger, name)
    return 0 if len(set(found.values())) == 1 else 1


if __name__ == "__main__":
    if sys.argv[1:] == [COMPILED] and not compiled.use():
        sys.exit("the domain was not compiled")
    if sys.argv[1:] in ([DECIDE], [COMPILED]):
        print(_decide())
    else:
        sys.exit(main())
