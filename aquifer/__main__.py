"""`python -m aquifer`, and the script `aquifer`."""

from __future__ import annotations

import sqlite3
import sys

from aquifer.errors import Trouble
from infra import compiled


def main() -> None:
    compiled.use()
    from aquifer.cli import app

    try:
        app()
    except Trouble as error:
        _end(str(error), error.code)
    except (OSError, sqlite3.DatabaseError) as error:
        _end(str(error), Trouble.code)


def _end(message: str, code: int) -> None:
    print(f"aquifer: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
