"""Tampers with a real ledger in a thousand seeded ways, and counts how many the proof finds."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from domain.cell import Cell
from domain.decide import decide
from domain.evolve import evolve
from domain.ledger import Round, Sealed, canonical, digest, seal, unseal
from domain.merkle import Tree, consistent, included, leaf
from streams import workload
from streams.keys import FileSigner, KeyRing
from streams.replay import Verdict, verify
from streams.scenario import EPOCH_MS
from streams.simulate import Simulation

HOURS: Final = 2
Records = list[bytes]
Tampering = Callable[["Ledger", random.Random], Records]

_sealed: Final = msgspec.json.Decoder(Sealed).decode


class Ledger:
    """A simulated morning's ledger, and keys of its cell and of a stranger."""

    def __init__(self, folder: Path, jobs: int = 150) -> None:
        self.signer = FileSigner(folder / "cell.pem")
        self.stranger = FileSigner(folder / "stranger.pem")
        self.ring = KeyRing([self.signer.public])
        self.records = self._simulated(1, jobs)
        self.other = self._simulated(2, jobs)
        """Another ledger, rightly signed, of a cell with the same name."""
        self.rounds = [unseal(record, None)[0] for record in self.records]
        self.head = unseal(self.records[-1], None)[1]

    def _simulated(self, seed: int, jobs: int) -> Records:
        records: Records = []
        day = workload.day(seed, EPOCH_MS, jobs)
        simulation = Simulation("c", day, self.signer, records.append)
        for _ in simulation.run(EPOCH_MS + HOURS * 3_600_000):
            pass
        return records

    async def read(self, records: Records, position: int) -> AsyncIterator[tuple[int, bytes]]:
        for found in enumerate(records[position:], position):
            yield found

    def verdict(self, records: Records) -> Verdict:
        """What the proof says, knowing the keys and the newest head."""

        class Log:
            def read(log, position: int) -> AsyncIterator[tuple[int, bytes]]:
                return self.read(records, position)

        async def go() -> Verdict:
            steps = verify(Log(), self.ring, cell_name="c", expected=self.head)
            return [verdict async for verdict in steps][-1]

        return asyncio.run(go())


# --- the kinds ------------------------------------------------------------------------------------


def flip(ledger: Ledger, chance: random.Random) -> Records:
    return _edited(
        ledger, chance, lambda r, at: r[:at] + bytes([r[at] ^ _bit(chance)]) + r[at + 1 :]
    )


def leave_out_a_byte(ledger: Ledger, chance: random.Random) -> Records:
    return _edited(ledger, chance, lambda r, at: r[:at] + r[at + 1 :])


def put_in_a_byte(ledger: Ledger, chance: random.Random) -> Records:
    byte = bytes([chance.randrange(256)])
    return _edited(ledger, chance, lambda r, at: r[:at] + byte + r[at:])


def cut_a_record(ledger: Ledger, chance: random.Random) -> Records:
    return _edited(ledger, chance, lambda r, at: r[:at])


def remove(ledger: Ledger, chance: random.Random) -> Records:
    first, last = _span(ledger, chance)
    return ledger.records[:first] + ledger.records[last:]


def cut_the_tail(ledger: Ledger, chance: random.Random) -> Records:
    return ledger.records[: chance.randrange(len(ledger.records))]


def swap(ledger: Ledger, chance: random.Random) -> Records:
    records = list(ledger.records)
    one, two = chance.sample(range(len(records)), 2)
    records[one], records[two] = records[two], records[one]
    return records


def turn_round(ledger: Ledger, chance: random.Random) -> Records:
    first = chance.randrange(len(ledger.records) - 2)
    last = chance.randrange(first + 2, len(ledger.records) + 1)
    records = ledger.records
    return records[:first] + records[first:last][::-1] + records[last:]


def rehash_with_old_signatures(ledger: Ledger, chance: random.Random) -> Records:
    """A round is changed, and the chain of all after it mended; the signatures stay."""
    first, rounds = _forged(ledger, chance)
    records = ledger.records[:first]
    for round, old in zip(rounds, ledger.records[first:], strict=True):
        body, sealed = canonical(round), _sealed(old)
        parts = (body, digest(body).hex().encode(), canonical(sealed.key), sealed.sig.encode())
        records.append(b'{"body":%b,"hash":"%b","key":%b,"sig":"%b"}' % parts)
    return records


def resign_as_a_stranger(ledger: Ledger, chance: random.Random) -> Records:
    first, rounds = _forged(ledger, chance)
    return ledger.records[:first] + [seal(round, ledger.stranger)[0] for round in rounds]


def resign_with_the_cells_key(ledger: Ledger, chance: random.Random) -> Records:
    """Whoever has the key still cannot sign what the decider would not decide."""
    first, rounds = _forged(ledger, chance)
    return ledger.records[:first] + [seal(round, ledger.signer)[0] for round in rounds]


def decide_another_history(ledger: Ledger, chance: random.Random) -> Records:
    """The cell's key, and a right decision of every round, but without one command."""
    with_commands = [n for n, round in enumerate(ledger.rounds) if round.commands]
    first = chance.choice(with_commands)
    cell, records = Cell("c"), ledger.records[:first]
    for record in records:
        evolve(cell, *unseal(record, None))
    left_out = chance.randrange(len(ledger.rounds[first].commands))
    for number, round in enumerate(ledger.rounds[first:], first):
        commands = [c for n, c in enumerate(round.commands) if (number, n) != (first, left_out)]
        again = decide(cell, round.header, commands)
        record, head = seal(again, ledger.signer)
        cell.believe(head, again.inputs)
        records.append(record)
    return records


def exchange_the_tail(ledger: Ledger, chance: random.Random) -> Records:
    first = chance.randrange(min(len(ledger.records), len(ledger.other)))
    return ledger.records[:first] + ledger.other[first:]


def move_a_signature(ledger: Ledger, chance: random.Random) -> Records:
    one, two = chance.sample(range(len(ledger.records)), 2)
    records = list(ledger.records)
    old, new = _sealed(records[one]).sig.encode(), _sealed(records[two]).sig.encode()
    records[one] = records[one].replace(old, new)
    return records


def write_a_signature_otherwise(ledger: Ledger, chance: random.Random) -> Records:
    records = list(ledger.records)
    at = chance.randrange(len(records))
    sig = _sealed(records[at]).sig.encode()
    records[at] = records[at].replace(sig, sig.upper())
    return records


KINDS: Final[tuple[Tampering, ...]] = (
    flip,
    leave_out_a_byte,
    put_in_a_byte,
    cut_a_record,
    remove,
    cut_the_tail,
    swap,
    turn_round,
    rehash_with_old_signatures,
    resign_as_a_stranger,
    resign_with_the_cells_key,
    decide_another_history,
    exchange_the_tail,
    move_a_signature,
    write_a_signature_otherwise,
)


def _bit(chance: random.Random) -> int:
    return 1 << chance.randrange(8)


def _span(ledger: Ledger, chance: random.Random) -> tuple[int, int]:
    first = chance.randrange(len(ledger.records))
    return first, chance.randrange(first + 1, len(ledger.records) + 1)


def _edited(ledger: Ledger, chance: random.Random, edit: Callable[[bytes, int], bytes]) -> Records:
    records = list(ledger.records)
    at = chance.randrange(len(records))
    records[at] = edit(records[at], chance.randrange(len(records[at])))
    return records


def _forged(ledger: Ledger, chance: random.Random) -> tuple[int, list[Round]]:
    """From a round that is changed in one of many ways on, all rounds in a right chain."""
    first = chance.randrange(len(ledger.rounds))
    rounds: list[Round] = []
    prev = ledger.rounds[first].prev
    for number, round in enumerate(ledger.rounds[first:], first):
        changed = _changed(round, chance) if number == first else round
        rounds.append(replace(changed, prev=prev))
        prev = digest(canonical(rounds[-1])).hex()
    return first, rounds


def _changed(round: Round, chance: random.Random) -> Round:
    ways = [
        replace(round, header=replace(round.header, now_ms=round.header.now_ms + 1)),
        replace(round, header=replace(round.header, work=round.header.work + 1)),
        replace(round, state=round.state[::-1]),
        replace(round, inputs={**round.inputs, "9": 1}),
        replace(round, duplicates=[*round.duplicates, len(round.commands)]),
    ]
    if round.facts:
        at = chance.randrange(len(round.facts))
        ways.append(replace(round, facts=round.facts[:at] + round.facts[at + 1 :]))
        ways.append(replace(round, facts=[*round.facts, round.facts[at]]))
    if round.commands:
        at = chance.randrange(len(round.commands))
        other = replace(round.commands[at], actor="someone-else")
        ways.append(
            replace(round, commands=[*round.commands[:at], other, *round.commands[at + 1 :]])
        )
        ways.append(replace(round, commands=round.commands[:at] + round.commands[at + 1 :]))
    return chance.choice(ways)


# --- what finds them ------------------------------------------------------------------------------


def found_by_proof(ledger: Ledger, records: Records) -> bool:
    return ledger.verdict(records).broken is not None


def found_by_checkpoint(ledger: Ledger, records: Records) -> bool:
    """Who kept only a root over all records is shown neither consistency nor the last record."""
    tree, other = Tree(), Tree()
    for record in ledger.records:
        tree.append(leaf(record))
    for record in records:
        other.append(leaf(record))
    size, root = len(tree), tree.root()
    if len(other) < size:
        return True
    last = included(
        ledger.records[-1], size - 1, len(other), other.inclusion(size - 1), other.root()
    )
    proof = other.consistency(size) if len(other) > size else []
    return not (last and consistent(size, root, len(other), other.root(), proof))


def tampered(ledger: Ledger, seed: int) -> tuple[str, Records]:
    """A kind by the seed, and the records that it leaves, which are other ones."""
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    while (records := kind(ledger, chance)) == ledger.records:
        pass
    return kind.__name__, records


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tamper", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    begun_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        assert not found_by_proof(ledger, ledger.records), "the untouched ledger is proven"
        assert not found_by_checkpoint(ledger, ledger.records)
        tried: Counter[str] = Counter()
        rules: Counter[str] = Counter()
        missed: list[int] = []
        by_checkpoint = 0
        for seed in range(options.seed, options.seed + options.count):
            kind, records = tampered(ledger, seed)
            tried[kind] += 1
            broken = ledger.verdict(records).broken
            rules["missed" if broken is None else broken.rule] += 1
            by_checkpoint += found_by_checkpoint(ledger, records)
            if broken is None:
                missed.append(seed)
    return {
        "tampered": options.count,
        "detected": options.count - len(missed),
        "detected_by_checkpoint": by_checkpoint,
        "missed_seeds": missed,
        "kinds": dict(tried),
        "rules": dict(rules),
        "ledger": {
            "records": len(ledger.records),
            "facts": sum(len(r.facts) for r in ledger.rounds),
        },
        "cpu_s": round(time.process_time() - begun_s, 1),
    }
