"""Start-up checks: each is shown to find what it is for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from domain.ledger import Head
from streams.doctor import (
    Finding,
    check_assertions,
    check_directory,
    check_form,
    check_head,
    check_key,
)
from streams.keys import FileSigner
from tests.streams.cells import NAME, Site, drain, world


def test_assertions() -> None:
    assert check_assertions().ok
    code = "from streams.doctor import check_assertions as c; print(c().ok, c().detail)"
    run = subprocess.run(
        [sys.executable, "-O", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("False off")


def test_the_form_of_the_decider() -> None:
    """That of machine code: tests/infra/compiled_test.py."""
    assert check_form() == Finding(
        "decider", True, "interpreted; `python -m infra.compiled` makes machine code of it"
    )


def test_the_state_directory(tmp_path: Path) -> None:
    assert check_directory(tmp_path).ok
    assert list(tmp_path.iterdir()) == []
    finding = check_directory(tmp_path / "none")
    assert not finding.ok
    assert "No such file" in finding.detail


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_the_signing_key(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cell.pem"
    assert check_key(path).ok
    FileSigner(path)
    assert check_key(path).ok
    path.chmod(mode)
    finding = check_key(path)
    assert not finding.ok
    assert f"{mode:04o}" in finding.detail


def test_the_believed_head(tmp_path: Path) -> None:
    site = Site(tmp_path)

    async def check() -> Finding:
        return await check_head(NAME, site.log, site.ring, site.remembered)

    async def go() -> None:
        assert (await check()).ok
        decider = site.decider()
        await decider.recover()
        await site.send(*world())
        await drain(decider)
        assert (await check()).ok
        head = decider.cell.head
        site.remembered.write(Head(head.round, "00" * 32))
        assert "another round 1" in (await check()).detail
        site.remembered.write(Head(head.round + 1, "00" * 32))
        finding = await check()
        assert not finding.ok
        assert "shows 1 rounds" in finding.detail
        (tmp_path / "head.json").write_bytes(b"")
        assert not (await check()).ok

    asyncio.run(go())
    site.database.close()
