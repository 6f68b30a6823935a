"""`aquifer submit`, `cancel` and `send`: commands on their way in.

They go to a running read API (--url), to Kafka, or straight into the state directory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.errors import rules_of
from aquifer.output import USAGE, JsonFlag, emit, fail

if TYPE_CHECKING:
    from domain.commands import Command

Url = Annotated[str | None, typer.Option(help="A running read API; else the profile's own way in.")]


def submit(
    job: Annotated[str, typer.Argument(help="The job's name, never used before.")],
    queue: Annotated[str, typer.Option(help="The queue that it joins.")],
    accelerator: Annotated[
        list[str], typer.Option(help="Type that it accepts; repeat for second choices.")
    ],
    slots: Annotated[int, typer.Option(help="Accelerator slots of each replica.")] = 1,
    replicas: Annotated[int, typer.Option(help="Replicas, each on one node: a gang.")] = 1,
    tier: Annotated[str, typer.Option(help="reserved, premium, standard or basic.")] = "standard",
    priority: Annotated[int, typer.Option(help="0 to 1000 within tier and queue.")] = 0,
    estimate_s: Annotated[int | None, typer.Option(help="Estimated time that it runs.")] = None,
    finish_in_s: Annotated[
        int | None, typer.Option(help="Deadline: it should be finished within this time.")
    ] = None,
    hard: Annotated[
        bool, typer.Option("--hard", help="Fail it when the deadline cannot be met.")
    ] = False,
    failover: Annotated[
        bool, typer.Option("--failover", help="A peer brings it back if its region is lost.")
    ] = False,
    reservation: Annotated[str | None, typer.Option(help="A reservation that it uses.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell when, where and at whose cost it starts.")
    ] = False,
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit one job; the answer says under which id its outcome will be found."""
    body: dict[str, Any] = {
        "type": "SubmitJob",
        "job": job,
        "queue": queue,
        "tier": tier,
        "priority": priority,
        "groups": [{"slots": slots, "count": replicas}],
        "flavours": [{"accelerator": a} for a in accelerator],
        "runtime": {} if estimate_s is None else {"estimate_s": estimate_s},
        "reservation": reservation,
        "locality": {"on_region_loss": "failover" if failover else "wait"},
        "deadline": _deadline(finish_in_s, hard),
    }
    command = parse_command(body)
    if dry_run:
        _dry_run(command, url, as_json)
    else:
        send_all([command], url, as_json)


def _dry_run(command: Command, url: str | None, as_json: bool) -> None:
    from aquifer.forecast import dry_run
    from domain.commands import SubmitJob

    assert isinstance(command, SubmitJob), "that is what was parsed"
    if url is not None:
        fail("--dry-run: it needs the ledger itself; leave --url out", USAGE)
    dry_run(command, as_json)


def _deadline(finish_in_s: int | None, hard: bool) -> dict[str, Any] | None:
    if finish_in_s is None:
        if hard:
            fail("--hard: give --finish-in-s, too", USAGE)
        return None
    from aquifer.clocks import SystemClock

    by_ms = SystemClock().now_ms() + 1000 * finish_in_s
    return {"finish_by_ms": by_ms, "hardness": "hard" if hard else "soft"}


def cancel(
    job: Annotated[str, typer.Argument(help="A job that is not at its end.")],
    reason: Annotated[str, typer.Option(help="What the ledger will say.")] = "",
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Cancel a job, waiting or running."""
    send_all([parse_command({"type": "CancelJob", "job": job, "reason": reason})], url, as_json)


def send(
    file: Annotated[Path, typer.Argument(help="JSON lines, one command each; - reads stdin.")],
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Send commands of any type: each line is the body of one, with its `type`."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(str(error), USAGE)
    commands: list[Command] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                commands.append(parse_command(json.loads(line)))
            except json.JSONDecodeError as error:
                fail(f"line {number}: {error}", USAGE)
    send_all(commands, url, as_json)


def parse_command(body: Any) -> Command:
    """The command of a body with its type; ends the program if there is none."""
    from pydantic import ValidationError

    from domain.commands import COMMANDS

    name = body.get("type") if isinstance(body, dict) else None
    if name not in COMMANDS:
        fail(f"type: {name!r} is none of {', '.join(COMMANDS)}", USAGE)
    try:
        command: Command = COMMANDS[name].model_validate_json(json.dumps(body))
    except ValidationError as error:
        fail("; ".join(rules_of(error, name)), USAGE)
    return command


def send_all(commands: Sequence[Command], url: str | None, as_json: bool) -> None:
    from aquifer import ways
    from aquifer.settings import load

    settings = load()
    sent = [(uuid.uuid4().hex, command) for command in commands]
    asyncio.run(ways.send(settings, url or settings.url, sent))
    answer = [{"id": id_, "type": type(command).__name__} for id_, command in sent]
    emit({"sent": answer} if as_json else answer, as_json)
