"""`python -m tests.golden.make NAME`: adds a ledger of this version; belongs to a release.

It stays for ever: later versions have to read it, and to fold it to the states that it names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from domain.ledger import canonical
from streams.keys import KeyRing
from tests.golden.script import Hour

FOLDER = Path(__file__).parent


def text_of(hour: Hour) -> bytes:
    """An exported ledger: its records, and a last line with the head."""
    end = canonical({"end": hour.cell.head})
    return b"".join(line + b"\n" for line in (*hour.records, end))


def main(name: str) -> None:
    """Raises FileExistsError: what is golden is never written again."""
    hour = Hour()
    hour.run()
    with (FOLDER / f"{name}.ndjson").open("xb") as file:
        file.write(text_of(hour))
    KeyRing([hour.signer.public]).save(FOLDER / f"{name}.ndjson.keys.json")


if __name__ == "__main__":
    main(sys.argv[1])
