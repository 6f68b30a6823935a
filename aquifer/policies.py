"""`aquifer policy lint|test|diff|explain|activate|canary|rollback`: policies as documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from aquifer.errors import rules_of
from aquifer.output import FAILED, USAGE, JsonFlag, emit, fail
from aquifer.submit import Url, parse_command, send_all

if TYPE_CHECKING:
    from domain.policies.documents import PolicyDocument

Json = dict[str, Any]
Files = Annotated[list[Path], typer.Argument(help="JSON documents, one policy each.")]


def lint(files: Files, as_json: JsonFlag = False) -> None:
    """Check documents: form, types, units, bounds, cost, reachability, loops, and their tests."""
    rows = [_linted(path) for path in files]
    if all(row["ok"] for row in rows):
        rows += _loops([load(path) for path in files])
    emit({"policies": rows} if as_json else rows, as_json)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(FAILED)


def run_tests(files: Files, as_json: JsonFlag = False) -> None:
    """Run the tests that travel with the documents."""
    from domain.policies import cases

    rows = []
    for path in files:
        document = load(path)
        trees = _valid(path, document)
        for case in document.tests:
            found = cases.outcome_of(document, trees, case)
            wrong = {
                slot: found.get(slot)
                for slot, expected in case.expect.items()
                if not cases.as_expected(found.get(slot), expected)
            }
            rows.append({"policy": document.policy, "test": case.test, "ok": not wrong} | wrong)
    emit({"tests": rows} if as_json else rows, as_json)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(FAILED)


def diff(
    old: Annotated[Path, typer.Argument(help="A document.")],
    new: Annotated[Path, typer.Argument(help="Another version of it.")],
    as_json: JsonFlag = False,
) -> None:
    """Tell what differs between two documents, rule by rule."""
    rows = list(_differences(load(old), load(new)))
    emit({"differences": rows} if as_json else rows, as_json)


def explain(
    job: Annotated[str, typer.Argument(help="The job's name.")],
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell which rules hold for a job now, what each does, and which of them counts."""
    from aquifer.read import ask

    answer = asyncio.run(ask(f"/v1/jobs/{quote(job)}", {}, url, None))
    rules = answer["rules"]
    emit({"job": job, "round": answer["round"], "rules": rules} if as_json else rules, as_json)


def activate(
    policy: Annotated[str, typer.Argument(help="A document's file, or the name of a policy.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Of a policy that was drafted before.")
    ] = None,
    watch_s: Annotated[
        int | None, typer.Option(min=60, help="Watch its gates so long: one that breaks ends it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="What the ledger will say.")] = "",
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Draft the document, and let it count from the round on that takes it."""
    bodies, name, number = _drafted(policy, version)
    more = {} if watch_s is None else {"watch_s": watch_s}
    bodies.append(
        {"type": "ActivatePolicy", "policy": name, "version": number, "reason": reason, **more}
    )
    send_all([parse_command(b) for b in bodies], url, as_json)


def canary(
    policy: Annotated[str, typer.Argument(help="A document's file, or the name of a policy.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Of a policy that was drafted before.")
    ] = None,
    slice_ppm: Annotated[
        int | None, typer.Option(min=1, max=999_999, help="Part of the queues; else as a shadow.")
    ] = None,
    for_s: Annotated[int, typer.Option(min=60, help="How long.")] = 3600,
    stop: Annotated[bool, typer.Option("--stop", help="Do not activate it in the end.")] = False,
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Try a version on a part of the queues, or beside the one in force; its gates are watched."""
    bodies, name, number = _drafted(policy, version)
    body = {"type": "StartCanary", "policy": name, "version": number, "for_s": for_s}
    body |= {"mode": "shadow"} if slice_ppm is None else {"mode": "slice", "slice_ppm": slice_ppm}
    bodies.append({**body, "then": "stop" if stop else "activate"})
    send_all([parse_command(b) for b in bodies], url, as_json)


def rollback(
    policy: Annotated[str, typer.Argument(help="The policy's name.")],
    reason: Annotated[str, typer.Option(help="What the ledger will say.")] = "",
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Let the version before count again, or none; or end a trial."""
    body = {"type": "RollBackPolicy", "policy": policy, "reason": reason}
    send_all([parse_command(body)], url, as_json)


def objectives(as_json: JsonFlag = False) -> None:
    """The policies that come with the product, by name."""
    from domain.policies.objectives import OBJECTIVES

    rows = [{"policy": d.policy, "title": d.title} for d in OBJECTIVES.values()]
    emit({"objectives": rows} if as_json else rows, as_json)


def objective(
    name: Annotated[str, typer.Argument(help="The name of an objective.")],
    when: Annotated[str, typer.Option(help="When it counts: a condition on signals.")] = "true",
) -> None:
    """Print an objective as a document, to be kept in a file and changed."""
    from domain.policies import validation
    from domain.policies.objectives import OBJECTIVES

    if name not in OBJECTIVES:
        fail(f"{name!r} is none of {', '.join(OBJECTIVES)}", USAGE)
    document = OBJECTIVES[name].model_copy(update={"when": when})
    try:
        validation.trees_of(document)
    except validation.Invalid as invalid:
        fail(f"--{invalid}", USAGE)
    typer.echo(document.model_dump_json(exclude_defaults=True, indent=2))


COMMANDS: dict[str, Callable[..., None]] = {
    "lint": lint,
    "test": run_tests,
    "diff": diff,
    "explain": explain,
    "activate": activate,
    "canary": canary,
    "rollback": rollback,
    "objectives": objectives,
    "objective": objective,
}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}", USAGE)


def _parse(path: Path) -> tuple[PolicyDocument | None, list[str]]:
    """The document, or what is wrong with its form."""
    from pydantic import ValidationError

    from domain.policies.documents import PolicyDocument

    try:
        return PolicyDocument.model_validate_json(json.dumps(_read(path))), []
    except ValidationError as error:
        return None, rules_of(error)


def load(path: Path) -> PolicyDocument:
    document, wrong = _parse(path)
    if document is None:
        fail(f"{path}: {'; '.join(wrong)}", FAILED)
    return document


def _valid(path: Path, document: PolicyDocument) -> Any:
    from domain.policies import validation

    try:
        return validation.trees_of(document)
    except validation.Invalid as invalid:
        fail(f"{path}: {invalid}", FAILED)


def _linted(path: Path) -> Json:
    from domain.policies import cases, validation

    document, wrong = _parse(path)
    if document is None:
        return {"file": str(path), "ok": False, "says": "; ".join(wrong)}
    try:
        cases.run(document, validation.trees_of(document))
    except validation.Invalid as invalid:
        return {"file": str(path), "ok": False, "says": str(invalid)}
    says = f"{len(document.rules)} rules, {len(document.tests)} tests"
    return {"file": str(path), "ok": True, "says": says}


def _loops(documents: Sequence[PolicyDocument]) -> list[Json]:
    """An undamped loop of controllers among documents that would count together."""
    from domain.policies import controllers, validation

    path = controllers.undamped_loop((d, validation.trees_of(d)) for d in documents)
    if path is None:
        return []
    return [{"file": "", "ok": False, "says": "undamped loop: " + " -> ".join(path)}]


def _differences(old: PolicyDocument, new: PolicyDocument) -> Iterator[Json]:
    before, after = (d.model_dump(mode="json", exclude_defaults=True) for d in (old, new))
    for part, key in (
        ("params", "param"),
        ("rules", "rule"),
        ("controllers", "controller"),
        ("gates", "gate"),
        ("tests", "test"),
    ):
        olds, news = ({e[key]: e for e in d.pop(part, ())} for d in (before, after))
        for name in dict.fromkeys((*olds, *news)):
            if olds.get(name) != news.get(name):
                yield {"part": part, "name": name, "old": olds.get(name), "new": news.get(name)}
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield {"part": name, "name": "", "old": before.get(name), "new": after.get(name)}


def _drafted(policy: str, version: int | None) -> tuple[list[Json], str, int]:
    """The commands that draft the document of a file; and the policy's name and version."""
    path = Path(policy)
    if version is not None:
        return [], policy, version
    if not path.exists():
        fail(f"{policy}: no such file; of a policy that was drafted give --version, too", USAGE)
    document = load(path)
    _valid(path, document)
    body = document.model_dump(mode="json", exclude_defaults=True)
    return [{"type": "DraftPolicy", "document": body}], document.policy, document.version
