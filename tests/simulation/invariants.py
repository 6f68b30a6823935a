"""What must always hold, checked from outside: against the topics, and by brute force.

The chain is read here by a few lines of its own (JSON, SHA-256, the key), not by the product's
reader. Each believed round is decided again from its commands, and followed by the naive model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import msgspec

from domain.cell import Cell
from domain.decide import decide
from domain.ledger import Head, Round, canonical
from streams.dispatch import Instruction, Kill, Start, Stop
from streams.fleet import Fleet
from streams.kafka import encode_accepted
from tests.domain.naive import Naive
from tests.simulation.broker import Partition, Record
from tests.simulation.loop import Violation

_round = msgspec.json.Decoder(Round, strict=True)
CommandKey = tuple[str, str]
"""Source and id."""


class Chain:
    """The one chain of believed records, followed as they are stored."""

    def __init__(self, name: str, accepted: Partition, verify: Callable[..., bool]) -> None:
        self.cell = Cell(name)
        self.heads = [Head()]
        self.rounds: list[Round] = []
        self.positions = [-1]
        self.records: list[bytes] = []
        self.naive = Naive()
        self.answers: dict[CommandKey, int] = {}
        """How each command that was not a duplicate was answered: how often."""
        self.refused: dict[CommandKey, str] = {}
        self.starts: dict[tuple[str, int], int] = {}
        """Round in which an attempt was started, by job and attempt."""
        self.stops: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self._accepted = accepted
        self._verify = verify
        self.taken = 0
        """Next offset of the accepted commands."""

    @property
    def head(self) -> Head:
        return self.heads[-1]

    def on_record(self, record: Record) -> None:
        """Believe it if it is whole, signed, and the next one."""
        try:
            sealed = json.loads(record.value)
            start = len(b'{"body":')
            end = record.value.rindex(b',"hash":"')
            body = record.value[start:end]
            hash_ = hashlib.sha256(body)
            signed = self._verify(sealed["key"], bytes.fromhex(sealed["sig"]), hash_.digest())
        except (ValueError, KeyError, TypeError):
            return
        if hash_.hexdigest() != sealed["hash"] or not signed:
            return
        number = sealed["body"]["header"]["round"]
        if number != self.head.round + 1 or sealed["body"]["prev"] != self.head.hash:
            return
        round = _round.decode(body)
        self._believe(round, body, Head(number, sealed["hash"]))
        self.positions.append(record.offset)
        self.records.append(record.value)

    def _believe(self, round: Round, body: bytes, head: Head) -> None:
        self._check_commands(round)
        quarantined = [tuple(place) for place in round.header.quarantined]
        assert len(set(quarantined)) == len(quarantined), "a place is quarantined once"
        if round.header.now_ms < self.cell.now_ms:
            raise Violation(f"round {head.round}: time goes back")
        again = decide(self.cell, round.header, round.commands)
        if canonical(again) != body:
            raise Violation(f"round {head.round} is decided differently again")
        self.cell.believe(head, round.inputs)
        self._check_reports(round)
        self._follow(round)
        self.heads.append(head)
        self.rounds.append(round)

    def _check_commands(self, round: Round) -> None:
        """All of the accepted commands, each once, in order, as they were accepted."""
        records = self._accepted.from_(self.taken, len(round.commands))
        if len(records) != len(round.commands):
            raise Violation(f"round {round.header.round} decides commands that nobody accepted")
        for command, record in zip(round.commands, records, strict=True):
            if command.offset != record.offset:
                raise Violation(
                    f"round {round.header.round}: command {command.offset} was taken,"
                    f" {record.offset} was next"
                )
            if command.type and encode_accepted(command) != record.value:
                raise Violation(f"command {command.offset} is not the one that was accepted")
            self.taken = record.offset + 1
        if round.inputs.get("0", 0) != self.taken:
            raise Violation(f"round {round.header.round}: its inputs are not what it took")
        self._count(round)

    def _count(self, round: Round) -> None:
        duplicates = set(round.duplicates)
        refused = {r.command: r.code for r in round.refusals}
        for n, command in enumerate(round.commands):
            key = (command.source, command.id)
            if n in duplicates:
                if key not in self.answers:
                    raise Violation(f"{key} is called a duplicate and was never answered")
                continue
            code = refused.get(n)
            if code is not None:
                self.refused.setdefault(key, code)
            if key in self.answers and code != "stale_command":
                raise Violation(f"{key} was answered twice")
            self.answers[key] = self.answers.get(key, 0) + 1

    def _check_reports(self, round: Round) -> None:
        """Only what the agents of the very attempt say counts for it."""
        said = set()
        for command in round.commands:
            if command.type == "ReportAttempt":
                body = json.loads(bytes(command.data))
                said.add((body["job"], body["attempt"], body["state"]))
        begun = {j: k.attempt.number for j, k in self.naive.jobs.items() if k.attempt is not None}
        for fact in round.facts:
            kind = type(fact).__name__
            if kind == "AttemptRunning":
                job = fact.job  # type: ignore[union-attr]
                if (job, begun.get(job), "running") not in said:
                    raise Violation(f"{job} runs by another attempt's report")
            elif kind == "AttemptEnded" and fact.reason == "finished":  # type: ignore[union-attr]
                job, attempt = fact.job, fact.attempt  # type: ignore[union-attr]
                if (job, attempt, "finished") not in said:
                    raise Violation(f"{job} finished and attempt {attempt} never said so")

    def _follow(self, round: Round) -> None:
        number = round.header.round
        for fact in round.facts:
            kind = type(fact).__name__
            if kind == "AttemptStarted":
                self.starts[fact.job, fact.attempt] = number  # type: ignore[union-attr]
            elif kind == "AttemptStopping":
                self.stops.setdefault((fact.job, fact.attempt), number)  # type: ignore[union-attr]
            elif kind == "AttemptEnded":
                self.ends[fact.job, fact.attempt] = number  # type: ignore[union-attr]
        try:
            self.naive.follow(round)
        except AssertionError as error:
            raise Violation(f"round {number}: {error or _where(error)}") from error
        except KeyError as error:
            raise Violation(f"round {number}: unknown {error}") from error

    # --- what others believe ----------------------------------------------------------------------

    def check_head(self, who: str, head: Head) -> None:
        if head.round >= len(self.heads) or self.heads[head.round] != head:
            raise Violation(f"{who} believes another round {head.round}")

    def check_round(self, who: str, round: Round) -> None:
        """The round that is told of is the believed one of its number."""
        number = round.header.round
        if number > len(self.rounds) or self.rounds[number - 1] != round:
            raise Violation(f"{who} tells of round {number}, which is not believed")

    def check_told(self, round: int, instruction: Instruction) -> None:
        """Told after belief: the instruction follows from a round that is believed."""
        key = (instruction.job, instruction.attempt)
        decided = {Start: self.starts, Stop: self.stops, Kill: self.ends}[type(instruction)]
        since = decided.get(key)
        if round > self.head.round or since is None or since > round:
            raise Violation(
                f"{type(instruction).__name__} of {key} was told before it was believed"
            )


def _where(error: AssertionError) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}" if trace is not None else "?"


class Fence:
    """One fleet's agents: what they were told, and that they run nothing older."""

    def __init__(
        self, name: str, fleet: Fleet, guard: Callable[..., None], killed: dict[str, int]
    ) -> None:
        """`killed`: attempts that were told to be over before the fleet started."""
        self._name = name
        self._fleet = fleet
        self._newest: dict[str, int] = {}
        self._over = dict(killed)
        self._begun: dict[str, int] = {}
        handle = fleet.agent.handle

        def checked(instruction: Instruction, now_ms: int) -> None:
            handle(instruction, now_ms)
            guard(self.check, instruction)

        fleet.agent.handle = checked  # type: ignore[method-assign]

    def check(self, instruction: Instruction) -> None:
        job, attempt = instruction.job, instruction.attempt
        newest = self._newest[job] = max(attempt, self._newest.get(job, 0))
        if isinstance(instruction, Kill):
            self._over[job] = max(attempt, self._over.get(job, 0))
        execution = self._fleet.agent._executions.get(job)
        if execution is None:
            return
        if execution.start.attempt <= self._over.get(job, 0):
            raise Violation(f"{self._name} runs {job} attempt {attempt}, which is over")
        running = execution.start.attempt
        if running < newest and self._has_part(instruction):
            raise Violation(f"{self._name} runs {job} attempt {running}, and knows of {newest}")
        if running < self._begun.get(job, 0):
            raise Violation(f"{self._name} runs {job} attempt {running} after a newer one")
        self._begun[job] = running

    def _has_part(self, instruction: Instruction) -> bool:
        if not isinstance(instruction, Start):
            return not isinstance(instruction, Stop)
        mine = self._fleet.agent._by_node
        return any(placed[0] in mine for placed in instruction.nodes)
