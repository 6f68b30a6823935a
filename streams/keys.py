"""The cell's signing key, and the public keys whose signatures are believed.

A key's id is the head of its public key's SHA-256, so an id cannot be given to another key.
Rotation: the new key's public half is added to the ring of all believers before it signs.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from streams import files


def key_id_of(public: bytes) -> str:
    """Id of a raw public key."""
    return hashlib.sha256(public).hexdigest()[:16]


class FileSigner:
    """Signs with the Ed25519 key of a PEM file that its owner alone may read."""

    def __init__(self, path: Path) -> None:
        """Makes the file if there is none. Raises OSError, ValueError (not such a key)."""
        if not path.exists():
            _create(path)
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path.name} holds no Ed25519 key")
        self._key = key
        self.public = key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def _create(path: Path) -> None:
    """Nobody ever sees a half-written key: it gets its name when it is whole."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, it never replaces another process's key
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    files.sync_directory(path.parent)


class KeyRing:
    """Verifies with a set of public keys; as a file, a JSON list of raw keys in hex."""

    def __init__(self, publics: Iterable[bytes]) -> None:
        self.publics = tuple(publics)
        self._keys = {key_id_of(p): Ed25519PublicKey.from_public_bytes(p) for p in self.publics}

    @staticmethod
    def load(path: Path) -> KeyRing:
        """Raises OSError, ValueError."""
        listed = json.loads(path.read_bytes())
        if not isinstance(listed, list) or not all(isinstance(k, str) for k in listed):
            raise ValueError(f"{path.name} is no list of public keys in hex")
        return KeyRing(bytes.fromhex(key) for key in listed)

    def save(self, path: Path) -> None:
        files.replace(path, json.dumps([p.hex() for p in self.publics]).encode() + b"\n")

    def adding(self, public: bytes) -> KeyRing:
        return self if public in self.publics else KeyRing((*self.publics, public))

    def verify(self, key_id: str, signature: bytes, message: bytes) -> bool:
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True
