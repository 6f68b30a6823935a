"""Keys: who signs, and whose signatures count."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from streams.keys import FileSigner, KeyRing


def test_the_key_is_made_once_and_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "cell.pem"
    signer = FileSigner(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileSigner(path).public == signer.public
    assert [p.name for p in tmp_path.iterdir()] == ["cell.pem"]


def test_processes_that_start_at_once_agree_on_a_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(FileSigner(tmp_path / "cell.pem").public)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_signatures(tmp_path: Path) -> None:
    one, two = FileSigner(tmp_path / "one.pem"), FileSigner(tmp_path / "two.pem")
    ring = KeyRing([one.public])
    assert ring.verify(one.key_id, one.sign(b"m"), b"m")
    assert not ring.verify(one.key_id, one.sign(b"m"), b"n")
    assert not ring.verify(one.key_id, two.sign(b"m"), b"m")
    assert not ring.verify(two.key_id, two.sign(b"m"), b"m")
    assert not ring.verify(one.key_id, b"short", b"m")
    both = ring.adding(two.public).adding(two.public)
    assert both.publics == (one.public, two.public)
    assert both.verify(two.key_id, two.sign(b"m"), b"m")
    assert both.verify(one.key_id, one.sign(b"m"), b"m")


def test_a_ring_is_a_file(tmp_path: Path) -> None:
    signer = FileSigner(tmp_path / "one.pem")
    path = tmp_path / "keys.json"
    KeyRing([signer.public]).save(path)
    assert KeyRing.load(path).verify(signer.key_id, signer.sign(b"m"), b"m")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '["zz"]', '["00"]'])
def test_a_wrong_ring_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - of the JSON or the key library
        KeyRing.load(path)


def test_a_file_that_holds_no_such_key_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    path = tmp_path / "cell.pem"
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="no Ed25519 key"):
        FileSigner(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError):  # noqa: PT011 - of the key library
        FileSigner(path)
