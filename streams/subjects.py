"""Personal data in a ledger that nothing is ever taken out of: sealed under a key of its subject.

A sealed text is ciphertext to all who decide, fold and prove. Whoever has the subjects' keys reads
it; when the key of a subject is destroyed, nobody does, and the ledger is as whole as it was.
"""

from __future__ import annotations

import base64
import os
import re
import sqlite3
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_SEALED: Final = 256
"""Characters of a text that a command may hold."""
NONCE: Final = 12
ERASED: Final = "(erased)"
_SEALED: Final = re.compile(r"~([0-9a-f]{16})~([A-Za-z0-9_-]+)")
_HANDLE: Final = re.compile(r"subject-([0-9a-f]{16})")
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS subjects (
    handle TEXT PRIMARY KEY, subject TEXT NOT NULL UNIQUE, key BLOB NOT NULL
)
"""


class Subjects:
    """The keys of all subjects, in one file that several processes may use.

    It is the one thing to keep apart from the ledger's backups, or to take out of them.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file if there is none. Raises sqlite3.Error."""
        fresh = not path.exists()
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
        if fresh:
            path.chmod(0o600)
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.execute(_TABLE)

    def close(self) -> None:
        self._database.close()

    def _row(self, column: str, value: str) -> tuple[str, str, bytes] | None:
        asked = f"SELECT handle, subject, key FROM subjects WHERE {column} = ?"
        found: tuple[str, str, bytes] | None = self._database.execute(asked, (value,)).fetchone()
        return found

    def _made(self, subject: str) -> tuple[str, str, bytes]:
        new = (os.urandom(8).hex(), subject, AESGCM.generate_key(256))
        self._database.execute("INSERT OR IGNORE INTO subjects VALUES (?, ?, ?)", new)
        row = self._row("subject", subject)
        assert row is not None, "it was there, or was put there"
        return row

    def handle(self, subject: str) -> str:
        """The name under which the ledger may know the subject; nothing in it tells whose it is."""
        return f"subject-{self._made(subject)[0]}"

    def seal(self, subject: str, text: str) -> str:
        """Raises ValueError if the sealed text would be longer than a command's text may be."""
        handle, _, key = self._made(subject)
        nonce = os.urandom(NONCE)
        cipher = AESGCM(key).encrypt(nonce, text.encode(), handle.encode())
        sealed = f"~{handle}~{base64.urlsafe_b64encode(nonce + cipher).decode().rstrip('=')}"
        if len(sealed) > MAX_SEALED:
            raise ValueError(f"sealed it has {len(sealed)} characters, at most {MAX_SEALED} fit")
        return sealed

    def erase(self, subject: str) -> bool:
        """Destroy the subject's key and name; False if it has none."""
        gone = self._database.execute("DELETE FROM subjects WHERE subject = ?", (subject,))
        return gone.rowcount == 1

    def subjects(self) -> list[str]:
        return [s for (s,) in self._database.execute("SELECT subject FROM subjects ORDER BY 1")]

    def revealed(self, value: Any) -> Any:
        """The value with all that is sealed in it opened; what was erased says so."""
        match value:
            case str():
                return _HANDLE.sub(self._named, _SEALED.sub(self._opened, value))
            case dict():
                return {name: self.revealed(part) for name, part in value.items()}
            case list() | tuple():
                return [self.revealed(part) for part in value]
        return value

    def _named(self, match: re.Match[str]) -> str:
        row = self._row("handle", match[1])
        return match[0] if row is None else row[1]

    def _opened(self, match: re.Match[str]) -> str:
        row = self._row("handle", match[1])
        if row is None:
            return ERASED
        data = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
        try:
            return AESGCM(row[2]).decrypt(data[:NONCE], data[NONCE:], row[0].encode()).decode()
        except (InvalidTag, ValueError):
            return match[0]
