"""The proof of a ledger: whatever was changed is found, and its round is named."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.commands import CancelJob, CordonNode, ReportAttempt
from domain.ledger import ENGINE, GENESIS, Head, Round, canonical, seal, unseal
from streams.export import FileLog, export
from streams.keys import FileSigner, KeyRing
from streams.reader import LedgerReader
from streams.replay import Verdict, verify, verify_file
from tests.streams.cells import NAME, Site, drain, submit, world


class Ledger:
    """A ledger of a dozen rounds and its export."""

    def __init__(self, path: Path) -> None:
        self.site = Site(path)
        self.file = path / "ledger.ndjson"
        self.ring = self.site.ring
        asyncio.run(self._make())
        self.lines = self.file.read_bytes().splitlines(keepends=True)
        self.rounds = len(self.lines) - 1

    async def _make(self) -> None:
        decider = self.site.decider()
        await decider.recover()
        await self.site.send(*world())
        await drain(decider)
        for number in range(10):
            self.site.clock.ms += 1000
            job = f"j{number}"
            await self.site.send(submit(job, 1 + number % 8), CordonNode(node=f"n{number}"))
            await drain(decider)
            if number % 2:
                await self.site.send(ReportAttempt(job=job, attempt=1, state="running"))
                await self.site.send(CancelJob(job=f"j{number - 1}"))
        await drain(decider)
        reader = LedgerReader(self.site.log, NAME, self.ring)
        async for _ in export(reader, self.file):
            pass

    def verdict(self, data: bytes | None = None, ring: KeyRing | None = None) -> Verdict:
        """Of the export, or of other bytes in its place."""
        path = self.file
        if data is not None:
            path = self.file.with_name("other.ndjson")
            path.write_bytes(data)

        async def go() -> Verdict:
            async for verdict in verify_file(FileLog(path), ring or self.ring):
                last = verdict
            return last

        return asyncio.run(go())

    def round(self, index: int) -> Round:
        return unseal(self.lines[index].removesuffix(b"\n"), None)[0]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    yield ledger
    ledger.site.database.close()


def broken(verdict: Verdict) -> tuple[str, int | None]:
    assert verdict.broken is not None
    assert not verdict.intact
    return verdict.broken.rule, verdict.broken.round


def test_a_ledger_is_proven(ledger: Ledger) -> None:
    verdict = ledger.verdict()
    assert verdict.intact
    assert verdict.rounds == verdict.records == ledger.rounds >= 10
    assert verdict.facts == sum(len(ledger.round(i).facts) for i in range(ledger.rounds))
    assert verdict.commands == ledger.site.sent
    assert (verdict.strays, verdict.folded, verdict.cell) == (0, 0, NAME)


def test_lines_are_the_very_records(ledger: Ledger) -> None:
    async def go() -> None:
        records = [record async for _, record in ledger.site.log.read(0)]
        assert [line + b"\n" for line in records] == ledger.lines[:-1]
        lines = [found async for found in FileLog(ledger.file).read(3)]
        assert lines == list(enumerate(records))[3:]

    asyncio.run(go())


@pytest.mark.slow
def test_a_changed_byte_is_found_wherever_it_is(ledger: Ledger) -> None:
    data = b"".join(ledger.lines)
    ends = list(itertools.accumulate(len(line) for line in ledger.lines))
    last = len(data) - len(ledger.lines[-1])
    for place in [*range(0, last, 97), *(end - 1 for end in ends), *range(last, len(data))]:
        for mask in (1, 0x20, 0x80):
            changed = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            _, round = broken(ledger.verdict(changed))
            line = sum(place >= end for end in ends)
            if place < last:
                assert round == line + 1, place
            else:
                assert round is not None
                assert round >= 1


@settings(max_examples=60)
@given(place=st.integers(0, 1 << 30), put=st.binary(max_size=40), gone=st.integers(0, 40))
def test_any_other_bytes_are_found(ledger: Ledger, place: int, put: bytes, gone: int) -> None:
    data = b"".join(ledger.lines)
    place %= len(data)
    changed = data[:place] + put + data[place + gone :]
    assert ledger.verdict(changed).intact == (changed == data)


def test_a_missing_record_is_named(ledger: Ledger) -> None:
    for index in range(ledger.rounds):
        lines = ledger.lines[:index] + ledger.lines[index + 1 :]
        rule = "chain" if index < ledger.rounds - 1 else "end"
        assert broken(ledger.verdict(b"".join(lines))) == (rule, index + 1)


def test_a_file_without_its_end_is_named(ledger: Ledger) -> None:
    for amount in range(ledger.rounds + 1):
        verdict = ledger.verdict(b"".join(ledger.lines[:amount]))
        assert broken(verdict) == ("end", amount + 1)
        assert verdict.rounds == amount


def test_records_in_another_order_or_of_another_ledger(ledger: Ledger, tmp_path: Path) -> None:
    lines = list(ledger.lines)
    lines[3], lines[4] = lines[4], lines[3]
    assert broken(ledger.verdict(b"".join(lines))) == ("chain", 4)
    other = Ledger(tmp_path)
    lines = [*ledger.lines[:5], other.lines[5], *ledger.lines[6:]]
    assert broken(ledger.verdict(b"".join(lines))) == ("signature", 6)
    assert broken(ledger.verdict(b"".join(other.lines))) == ("signature", 1)
    other.site.database.close()


def test_a_repeated_record_is_a_stray_and_no_break(ledger: Ledger) -> None:
    lines = [*ledger.lines[:5], ledger.lines[2], *ledger.lines[5:]]
    verdict = ledger.verdict(b"".join(lines))
    assert verdict.intact
    assert (verdict.strays, verdict.rounds) == (1, ledger.rounds)


def _rewritten(
    ledger: Ledger, index: int, change: Callable[[Round], Round], signer: FileSigner
) -> bytes:
    """The ledger with one round changed, and all hashes from there on made to fit."""
    lines, head = list(ledger.lines[:index]), Head(0, GENESIS)
    for line in lines:
        head = unseal(line.removesuffix(b"\n"), None)[1]
    for place in range(index, ledger.rounds):
        round = replace(ledger.round(place), prev=head.hash)
        record, head = seal(change(round) if place == index else round, signer)
        lines.append(record + b"\n")
    lines.append(canonical({"end": head}) + b"\n")
    return b"".join(lines)


def _without_facts(round: Round) -> Round:
    return replace(round, facts=round.facts[:-1])


def test_a_forger_with_a_right_chain_is_named(ledger: Ledger, tmp_path: Path) -> None:
    thief = FileSigner(tmp_path / "thief.pem")

    class Impostor(FileSigner):
        """Names the cell's key, and signs with its own."""

    impostor = Impostor(tmp_path / "thief.pem")
    impostor.key_id = ledger.site.signer.key_id
    for index in (0, 5, ledger.rounds - 1):
        for signer in (thief, impostor):
            forged = _rewritten(ledger, index, _without_facts, signer)
            assert broken(ledger.verdict(forged)) == ("signature", index + 1)


def test_a_forged_record_beside_the_right_one_is_named(ledger: Ledger, tmp_path: Path) -> None:
    thief = FileSigner(tmp_path / "thief.pem")
    for index in (1, ledger.rounds - 1):
        forged, _ = seal(_without_facts(ledger.round(index)), thief)
        for place in (index, index + 1):
            lines = [*ledger.lines[:place], forged + b"\n", *ledger.lines[place:]]
            assert broken(ledger.verdict(b"".join(lines))) == ("signature", place + 1)


CHANGES: dict[str, Callable[[Round], Round]] = {
    "facts": _without_facts,
    "refusals": lambda r: replace(r, refusals=[]),
    "state": lambda r: replace(r, state="00" * 16),
    "inputs": lambda r: replace(r, inputs={"0": 10_000}),
    "time": lambda r: replace(r, header=replace(r.header, now_ms=r.header.now_ms + 1)),
    "back in time": lambda r: replace(r, header=replace(r.header, now_ms=1)),
    "commands": lambda r: replace(r, commands=r.commands[:1]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_even_the_cells_own_key_cannot_sign_another_decision(ledger: Ledger, what: str) -> None:
    forged = _rewritten(ledger, 4, CHANGES[what], ledger.site.signer)
    rule, round = broken(ledger.verdict(forged))
    assert (rule, round) == ("decision", 5)


def test_an_older_engines_rounds_are_folded(ledger: Ledger) -> None:
    def older_engine(round: Round) -> Round:
        return replace(round, header=replace(round.header, engine=ENGINE - 1))

    verdict = ledger.verdict(_rewritten(ledger, 4, older_engine, ledger.site.signer))
    assert verdict.intact
    assert verdict.folded == 1

    def and_lies(round: Round) -> Round:
        return _without_facts(older_engine(round))

    forged = _rewritten(ledger, 4, and_lies, ledger.site.signer)
    assert broken(ledger.verdict(forged)) == ("decision", 6)


def test_a_live_log_is_proven_against_what_is_remembered(ledger: Ledger) -> None:
    async def go(expected: Head | None, name: str | None = NAME) -> Verdict:
        log = ledger.site.log
        async for verdict in verify(log, ledger.ring, cell_name=name, expected=expected):
            last = verdict
        return last

    head = ledger.site.remembered.read()
    assert head is not None
    assert asyncio.run(go(head)).intact
    assert asyncio.run(go(None)).intact
    longer = Head(head.round + 2, "00" * 32)
    assert broken(asyncio.run(go(longer))) == ("end", head.round + 1)
    assert broken(asyncio.run(go(Head(3, "00" * 32)))) == ("end", 3)
    assert broken(asyncio.run(go(None, "c2"))) == ("chain", 1)


def test_a_signature_in_other_letters_is_found(ledger: Ledger) -> None:
    first, _, rest = ledger.lines[0].partition(b'"sig":"')
    signature = rest[:128]
    assert signature.upper() != signature
    line = first + b'"sig":"' + signature.upper() + rest[128:]
    verdict = ledger.verdict(b"".join([line, *ledger.lines[1:]]))
    assert broken(verdict) == ("signature", 1)


PROOF = """
import asyncio, sys
from pathlib import Path
from streams.export import FileLog
from streams.keys import KeyRing
from streams.replay import verify_file

async def prove():
    async for verdict in verify_file(FileLog(Path(sys.argv[1])), KeyRing.load(Path(sys.argv[2]))):
        pass
    print(verdict.intact, verdict.rounds, verdict.head.hash)

asyncio.run(prove())
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_another_process_decides_the_same(ledger: Ledger, tmp_path: Path, seed: str) -> None:
    keys = tmp_path / "keys.json"
    ledger.ring.save(keys)
    run = subprocess.run(
        [sys.executable, "-c", PROOF, str(ledger.file), str(keys)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["True", str(ledger.rounds), ledger.verdict().head.hash]
