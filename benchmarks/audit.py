"""What an audit of a million facts costs: all of it, a past moment, and the proof of a record."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from aquifer.moments import Moment
from aquifer.projecting import Ledger, fill_state
from benchmarks.restart import History
from domain.ledger import Round, Sealed, digest
from projections.sqlite_store import SqliteStore
from streams import checkpoints
from streams.parallel_replay import verify_in_parallel
from streams.replay import verify
from streams.tree_file import TreeFile

MOMENTS: Final = 9
PROOFS: Final = 200

_sealed: Final = msgspec.json.Decoder(Sealed).decode
_round: Final = msgspec.json.Decoder(Round).decode


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--snapshot-facts", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.write(options.facts, options.snapshot_facts)
        try:
            return asyncio.run(_measured(history, Path(folder), options))
        finally:
            history.database.close()


async def _measured(history: History, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    log, name, ring = history.log, history.bench.cell.name, history.verifier
    result: dict[str, Any] = {"facts": history.facts, "records": history.rounds}

    begun_s = time.process_time()
    async for _, record in log.read(0):
        sealed = _sealed(record)
        digest(sealed.body)
        _round(sealed.body)
    limit_s = time.process_time() - begun_s
    result["limit_facts_per_cpu_s"] = round(history.facts / limit_s)

    begun_s = time.process_time()
    async for verdict in verify(log, ring, cell_name=name, expected=history.bench.cell.head):
        assert verdict.intact
    cpu_s = time.process_time() - begun_s
    assert verdict.facts == history.facts
    result["verify_facts_per_cpu_s"] = round(history.facts / cpu_s)
    result["verify_of_limit"] = round(limit_s / cpu_s, 3)

    begun_s = time.perf_counter()
    several = verify_in_parallel(
        log, history.snapshots, ring, name, history.bench.cell.head, options.processes
    )
    verdicts = [verdict async for verdict in several]
    assert verdicts[-1] is not None, "what one process proves, several do"
    result["processes"] = options.processes
    result["parallel_wall_facts_per_s"] = round(history.facts / (time.perf_counter() - begun_s))

    result |= await _as_of(history, folder)
    result |= await _proofs(history, folder)
    return result


async def _as_of(history: History, folder: Path) -> dict[str, Any]:
    """Seconds until a store holds what stood at a random moment."""
    chance = random.Random(1)
    took_s = []
    for number in range(MOMENTS):
        at = Moment(round=chance.randrange(1, history.rounds))
        begun_s = time.perf_counter()
        store = SqliteStore(folder / f"as-of-{number}.sqlite")
        cell = history.bench.cell.name
        ledger = Ledger(cell, history.log, history.verifier, history.rounds, history.snapshots)
        await fill_state(ledger, store, at)
        assert (await store.applied(cell)).round == at.round
        took_s.append(time.perf_counter() - begun_s)
        await store.close()
    took_s.sort()
    return {"as_of_p50_s": round(took_s[MOMENTS // 2], 3), "as_of_max_s": round(took_s[-1], 3)}


async def _proofs(history: History, folder: Path) -> dict[str, Any]:
    """Milliseconds from a round's number to its checked proof; the tree is grown before."""
    name, ring = history.bench.cell.name, history.verifier
    file = TreeFile(folder / "tree")
    begun_s = time.process_time()
    async for _ in checkpoints.grow_file(file, history.log, name, ring):
        pass
    grown_s = time.process_time() - begun_s
    claim = checkpoints.checkpoint(name, checkpoints.Grown(file.tree))
    signed = checkpoints.sign(claim, history.signer)
    file.close()
    chance = random.Random(2)
    took_ms = []
    for _ in range(PROOFS):
        number = chance.randrange(1, history.rounds)
        begun_s = time.perf_counter()
        file = TreeFile(folder / "tree")
        async for _ in checkpoints.grow_file(file, history.log, name, ring, [signed]):
            pass
        record = await checkpoints.record_at(history.log, file.position(number - 1))
        checkpoints.inclusion(checkpoints.Grown(file.tree, 0, record), number, signed)
        took_ms.append(1000 * (time.perf_counter() - begun_s))
        file.close()
    took_ms.sort()
    return {
        "tree_grown_cpu_s": round(grown_s, 2),
        "proof_p50_ms": round(took_ms[PROOFS // 2], 2),
        "proof_max_ms": round(took_ms[-1], 2),
    }
