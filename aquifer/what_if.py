"""`aquifer what-if`: recorded demand through the decider once more, with something changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.audit import EVERY, Keys
from aquifer.errors import Misuse, rules_of
from aquifer.output import JsonFlag, emit, fail, note, progress
from domain.ledger import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aquifer.ledgers import Source
    from aquifer.moments import Moment
    from domain.cell import Cell
    from domain.ledger import Head
    from domain.policies.documents import PolicyDocument
    from domain.specs import PolicyParameters
    from streams.changes import Change
    from streams.comparison import Comparison, Window
    from streams.reader import Believed

Json = dict[str, Any]


def what_if(
    policy: Annotated[
        Path | None, typer.Option(help="JSON object of policy parameters; others as at the end.")
    ] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="Document of a policy that would count; repeat.")
    ] = None,
    capacity: Annotated[
        Path | None, typer.Option(help="JSON lines of RegisterNode and RemoveNode commands.")
    ] = None,
    quota: Annotated[Path | None, typer.Option(help="JSON lines of SetQuota commands.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Round or time of the first round; the start.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Round or time of the last round; the end.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder or exported file; by default the cell's own.")
    ] = None,
    round_ms: Annotated[
        int | None,
        typer.Option(min=1, help="Grid of supposed rounds; by default that of the recorded ones."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw both histories' use and queue into this file.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(help="Write the command that names this report, for `send`."),
    ] = None,
    keys: Keys = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare what was with what would have been under another policy, capacity or quota."""
    documents = [_document(path) for path in rules or ()]
    if sign is not None and (policy is None) == (len(documents) != 1):
        raise Misuse("--sign: a report speaks for one policy (--policy or --rules)")
    asked = Asked(_object(policy), _lines(capacity), _lines(quota), since, until, round_ms)
    asked.documents = documents
    report, comparison, change = asyncio.run(_answer(asked, ledger, keys))
    if plot is not None:
        from streams.plot import draw_beside

        lines = (comparison.recorded.measure.timeline, comparison.supposed.measure.timeline)
        draw_beside(*lines, plot)
    if sign is not None:
        _sign(sign, report, change, comparison)
    if as_json:
        emit(report, True)
    else:
        _tell(report)


class Asked:
    """The question, as far as it can be understood without the ledger."""

    def __init__(
        self,
        policy: Json | None,
        capacity: list[Json],
        quotas: list[Json],
        since: str | None,
        until: str | None,
        round_ms: int | None,
    ) -> None:
        from aquifer.moments import NOW, moment_of

        self.policy = policy
        self.capacity = capacity
        self.quotas = quotas
        self.documents: list[PolicyDocument] = []
        self.since: Moment = NOW if since is None else moment_of(since, "--from")
        self.until: Moment = NOW if until is None else moment_of(until, "--to")
        self.round_ms = round_ms


def _object(path: Path | None) -> Json | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise Misuse(f"{path}: it is not a JSON object")
    return found


def _document(path: Path) -> PolicyDocument:
    from aquifer.policies import load

    return load(path)


def _lines(path: Path | None) -> list[Json]:
    if path is None:
        return []
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: {error}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise Misuse(f"{path}: each line is a command, a JSON object with its type")
    return lines


def _change(asked: Asked, window: Window) -> Change:
    from aquifer.submit import parse_command
    from domain.commands import RegisterNode, RemoveNode, SetQuota
    from streams.changes import Change

    change = Change(documents={d.policy: d for d in asked.documents})
    if asked.policy is not None:
        change.policy = _policy(asked.policy, window.policy)
    for option, bodies in (("--capacity", asked.capacity), ("--quota", asked.quotas)):
        for body in bodies:
            match option, parse_command(body):
                case "--capacity", RegisterNode() as spec:
                    change.nodes[spec.node] = spec
                case "--capacity", RemoveNode() as gone:
                    change.nodes[gone.node] = None
                case "--quota", SetQuota() as quota:
                    change.quotas[quota.account] = quota
                case _:
                    raise Misuse(f"{option}: a {body['type']} is nothing that it may hold")
    return change


def _policy(given: Json, in_force: PolicyParameters) -> PolicyParameters:
    from pydantic import ValidationError

    from domain.specs import PolicyParameters

    whole = {**in_force.model_dump(mode="json"), **given}
    try:
        return PolicyParameters.model_validate_json(canonical(whole))
    except ValidationError as error:
        raise Misuse(f"--policy: {'; '.join(rules_of(error))}") from None


async def _answer(
    asked: Asked, ledger: Path | None, keys: Path | None
) -> tuple[Json, Comparison, Change]:
    from aquifer import ledgers, settings
    from streams.comparison import Comparison, study
    from streams.what_if import CannotReplay

    async with ledgers.opened(settings.load(), ledger, keys) as source:
        try:
            learned, window = await study(
                lambda head: _read(source, head, "learning"),
                asked.since.begins_with,
                lambda header: not asked.until.is_before(header),
                asked.round_ms,
            )
        except ValueError as error:
            fail(f"--from, --to: {error}")
        before, position = await _before(source, window)
        change = _change(asked, window)
        comparison = Comparison(before, learned, change, window)
        try:
            async for believed in _read(source, before.head, "deciding again", position):
                if believed.head.round > window.last:
                    break
                comparison.follow(believed)
        except CannotReplay as error:
            fail(str(error))
        return comparison.finish(), comparison, change


async def _read(
    source: Source, head: Head, what: str, position: int = -1
) -> AsyncIterator[Believed]:
    from streams.reader import LedgerReader

    reader = LedgerReader(source.log, source.cell, source.verifier, head, position)
    with progress(what) as tell:
        async for believed in reader.read():
            if believed.head.round % EVERY == 0:
                tell(believed.head.round, max(believed.head.round, source.size))
            yield believed


async def _before(source: Source, window: Window) -> tuple[Cell, int]:
    """The state before the window, from the nearest snapshot, and its record's position."""
    from streams.reader import catch_up, restore

    cell, reader = await restore(
        source.cell, source.log, source.verifier, source.snapshots, window.first - 1
    )
    if cell.head.round < window.first - 1:
        async for believed in catch_up(cell, reader):
            if believed.head.round == window.first - 1:
                return cell, believed.position
    return cell, reader.head_position


def _sign(path: Path, report: Json, change: Change, comparison: Comparison) -> None:
    """The command, ready to be sent, and the report that it names."""
    import hashlib

    from domain.commands import Command, SetPolicy
    from domain.policies import lifecycle
    from domain.policies.commands import ReplayPolicy
    from domain.replays import Replay, digest_of
    from streams.envelope import body_of

    text = canonical(report)
    gates = report["gates"]
    document = next(iter(change.documents.values()), None)
    if document is not None:
        digest = lifecycle.digest_of(document)
    else:
        assert change.policy is not None, "it was asked for"
        digest = digest_of(change.policy)
    replay = Replay(
        report=hashlib.sha256(text).hexdigest(),
        parameters=digest,
        policy_version=comparison.recorded.cell.policy_version,
        first_round=report["rounds"][0],
        last_round=report["rounds"][1],
        passed=tuple(gate for gate, passed in gates.items() if passed),
        failed=tuple(gate for gate, passed in gates.items() if not passed),
    )
    command: Command
    if document is not None:
        command = ReplayPolicy(policy=document.policy, version=document.version, replay=replay)
    else:
        assert change.policy is not None, "it was asked for"
        command = SetPolicy(parameters=change.policy, replay=replay)
    body = {"type": type(command).__name__, **body_of(command)}
    beside = path.with_name(f"{path.name}.report.json")
    for file, data in ((path, canonical(body)), (beside, text)):
        try:
            with file.open("xb") as out:
                out.write(data + b"\n")
        except FileExistsError:
            raise Misuse(f"--sign: {file} exists") from None
    note(f"{path}: the command; {beside}: the report that it names")


def _tell(report: Json) -> None:
    same, (first, last) = report["rounds_same_bytes"], report["rounds"]
    print(f"rounds {first} to {last}: {same} the same to the byte,", end=" ")
    print(f"{report['differing_decisions']} decisions differ", end="")
    parted = report["differs_at_round"]
    print("" if parted is None else f"; the histories part in round {parted}", end="\n\n")
    emit(_rows("figure", _transposed(report["kpis"])), False)
    for kind in ("tiers", "accounts"):
        print(f"\n{kind}:")
        for name, sides in report[kind].items():
            print(f"{name}:")
            emit(_rows("figure", _transposed(sides)), False)
    for name, tiers in report["promises"].items():
        print(f"\npromise {name}:")
        emit(_rows("tier", tiers), False)
    print("\ncost, slot-seconds:")
    emit(_rows("account", _transposed(report["cost"])), False)
    print()
    emit({kind: report[kind] for kind in ("winners", "losers", "gates", "jobs_assumed")}, False)


def _transposed(sides: Json) -> Json:
    names = dict.fromkeys(name for side in sides.values() for name in side or {})
    return {name: {key: (side or {}).get(name) for key, side in sides.items()} for name in names}


def _rows(head: str, table: Json) -> list[Json]:
    return [{head: name, **sides} for name, sides in table.items()]
