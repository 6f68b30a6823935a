"""Each kind of incompatible change is planted into the real schemas, and has to be found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from aquifer.contracts import documents
from tests.contract.compatibility import broken, narrowed

Json = dict[str, Any]
Change = Callable[[Json], object]

SUBMIT = "commands/SubmitJob.v1.json"
FACTS = "facts.v1.json"
RECORD = "ledger-record.v1.json"
INSTRUCTION = "dispatch-instruction.v1.json"
REAL = documents()


def planted(path: str, change: Change) -> list[str]:
    """What the checker says of the real documents after the change of one."""
    current = copy.deepcopy(REAL)
    change(current[path])
    assert current != REAL, "nothing was changed"
    return broken(REAL, current)


def fields(document: Json, *parts: str) -> Json:
    """The properties of a definition, or of the document itself."""
    for part in parts:
        document = document["$defs"][part]
    found: Json = document["properties"]
    return found


def renamed(fields: Json, old: str, new: str) -> None:
    fields[new] = fields.pop(old)


COMMAND_CHANGES: dict[str, Change] = {
    "field removed": lambda d: fields(d).pop("preemptible"),
    "field renamed": lambda d: renamed(fields(d), "max_restarts", "restarts_max"),
    "nested field removed": lambda d: fields(d, "Runtime").pop("grace_s"),
    "type changed": lambda d: fields(d)["priority"].update(type="string"),
    "type no longer nullable": lambda d: fields(d)["reservation"].update(
        anyOf=[fields(d)["reservation"]["anyOf"][0]]
    ),
    "lower bound raised": lambda d: fields(d, "ReplicaGroup")["slots"].update(minimum=1),
    "upper bound lowered": lambda d: fields(d)["priority"].update(maximum=999),
    "upper bound added": lambda d: d["$defs"]["Tier"].update(maxLength=8),
    "fewer items": lambda d: fields(d)["groups"].update(maxItems=15),
    "more items required": lambda d: fields(d)["flavours"].update(minItems=2),
    "pattern changed": lambda d: fields(d)["job"].update(pattern="^[a-z]+$"),
    "new required field": lambda d: (
        fields(d).update(owner={"type": "string"}),
        d["required"].append("owner"),
    ),
    "field became required": lambda d: d["required"].append("tier"),
    "enum value removed": lambda d: d["$defs"]["Tier"]["enum"].remove("basic"),
    "default changed": lambda d: fields(d, "Runtime")["grace_s"].update(default=60),
    "default of a part changed": lambda d: fields(d)["runtime"]["default"].update(grace_s=60),
    "default gone": lambda d: fields(d)["preemptible"].pop("default"),
    "rule added": lambda d: d["x-rules"].append("names_are_short"),
    "labels limited": lambda d: fields(d)["labels"].update(maxProperties=31),
    "label names limited": lambda d: fields(d)["labels"].update(
        patternProperties={"^[a-z]+$": {"type": "string"}}
    ),
    "unheard-of keyword": lambda d: fields(d)["job"].update({"not": {"const": "x"}}),
    "another constant": lambda d: fields(d)["type"].update(const="Submit"),
}


@pytest.mark.parametrize("name", COMMAND_CHANGES)
def test_finds_in_a_command(name: str) -> None:
    assert planted(SUBMIT, COMMAND_CHANGES[name]) != []


FACT_CHANGES: dict[str, tuple[str, Change]] = {
    "field removed": (FACTS, lambda d: fields(d, "AttemptEnded").pop("lost_slot_s")),
    "field renamed": (FACTS, lambda d: renamed(fields(d, "Why"), "score", "points")),
    "type narrowed": (
        FACTS,
        lambda d: fields(d, "Why")["runner_up"].update(anyOf=[{"type": "string"}]),
    ),
    "type widened": (FACTS, lambda d: fields(d, "JobRequeued")["reason"].pop("type")),
    "now nullable": (
        FACTS,
        lambda d: fields(d, "Victim").update(job={"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ),
    "new required field": (
        FACTS,
        lambda d: (
            fields(d, "JobFinished").update(at_ms={"type": "integer"}),
            d["$defs"]["JobFinished"]["required"].append("at_ms"),
        ),
    ),
    "may be left out now": (FACTS, lambda d: d["$defs"]["JobFailed"]["required"].remove("reason")),
    "default changed": (FACTS, lambda d: fields(d, "NodeReported")["healthy"].update(default=0)),
    "kind removed": (FACTS, lambda d: d["anyOf"].pop()),
    "kind renamed": (FACTS, lambda d: fields(d, "NodeLost")["t"].update(enum=["NodeGone"])),
    "item added to a tuple": (
        FACTS,
        lambda d: fields(d, "AttemptStarted")["nodes"]["items"]["prefixItems"].append({}),
    ),
    "record field removed": (RECORD, lambda d: fields(d, "Header").pop("work")),
    "record refers to others": (
        RECORD,
        lambda d: fields(d, "Round")["facts"].update(items={"$ref": "facts.v2.json"}),
    ),
    "instruction field removed": (INSTRUCTION, lambda d: fields(d, "Stop").pop("reason")),
}


@pytest.mark.parametrize("name", FACT_CHANGES)
def test_finds_in_what_is_written(name: str) -> None:
    path, change = FACT_CHANGES[name]
    assert planted(path, change) != []


def _message(document: Json, name: str) -> Json:
    found: Json = document["components"]["messages"][name]
    return found


ASYNCAPI_CHANGES: dict[str, Change] = {
    "topic renamed": lambda d: d["channels"]["ledger"].update(address="log.{cell}"),
    "message gone": lambda d: d["channels"]["cmd"]["messages"].pop("SubmitJob.v1.binary"),
    "content type": lambda d: _message(d, "SubmitJob.v1.binary").update(contentType="text/json"),
    "header required": lambda d: _message(d, "SubmitJob.v1.structured")["headers"][
        "required"
    ].append("aquifer-actor"),
    "header gone": lambda d: _message(d, "deadLetter.v1")["headers"]["properties"].pop(
        "aquifer-dead-letter"
    ),
    "attribute gone": lambda d: _message(d, "CancelJob.v1.structured")["payload"]["properties"].pop(
        "keyid"
    ),
}


@pytest.mark.parametrize("name", ASYNCAPI_CHANGES)
def test_finds_on_the_topics(name: str) -> None:
    assert planted("asyncapi.json", ASYNCAPI_CHANGES[name]) != []


def _operation(document: Json, method: str, path: str) -> Json:
    found: Json = document["paths"][path][method]
    return found


OPENAPI_CHANGES: dict[str, Change] = {
    "operation gone": lambda d: d["paths"].pop("/v1/jobs/{job}"),
    "method gone": lambda d: d["paths"]["/v1/commands/{type}"].pop("post"),
    "parameter gone": lambda d: _operation(d, "get", "/v1/jobs")["parameters"].pop(),
    "parameter required": lambda d: _operation(d, "get", "/v1/jobs")["parameters"][-1].update(
        required=True
    ),
    "answer's field gone": lambda d: d["components"]["schemas"]["jobs"]["properties"].pop("state"),
    "answer's type changed": lambda d: d["components"]["schemas"]["jobs"]["properties"][
        "state"
    ].update(type="integer"),
}


@pytest.mark.parametrize("name", OPENAPI_CHANGES)
def test_finds_in_the_read_api(name: str) -> None:
    assert planted("openapi.json", OPENAPI_CHANGES[name]) != []


COMPATIBLE: dict[str, tuple[str, Change]] = {
    "optional field of a command": (
        SUBMIT,
        lambda d: fields(d, "Runtime").update(boot_s={"type": "integer", "default": 0}),
    ),
    "its default inside another's": (
        SUBMIT,
        lambda d: fields(d)["runtime"]["default"].update(boot_s=0),
    ),
    "wider bound": (SUBMIT, lambda d: fields(d)["priority"].update(maximum=2000)),
    "another enum value": (SUBMIT, lambda d: d["$defs"]["Tier"]["enum"].append("spot")),
    "no longer required": (SUBMIT, lambda d: d["required"].remove("flavours")),
    "rule gone": (SUBMIT, lambda d: d.pop("x-rules")),
    "text": (SUBMIT, lambda d: d.update(description="another one")),
    "optional field of a fact": (
        FACTS,
        lambda d: fields(d, "JobFailed").update(code={"type": "string", "default": ""}),
    ),
    "another fact": (
        FACTS,
        lambda d: d["anyOf"].append({"title": "JobLost", "type": "object", "properties": {}}),
    ),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_allows(name: str) -> None:
    path, change = COMPATIBLE[name]
    assert planted(path, change) == []


def test_a_document_may_be_gone_only_for_a_later_version() -> None:
    without = {path: made for path, made in REAL.items() if path != SUBMIT}
    assert broken(REAL, without) == [f"{SUBMIT}: it is gone"]
    later = {**without, "commands/SubmitJob.v2.json": {"type": "object"}}
    assert broken(REAL, later) == []
    earlier = {**without, "commands/SubmitJob.v0.json": REAL[SUBMIT]}
    assert broken(REAL, earlier) == [f"{SUBMIT}: it is gone"]


def test_what_stays_the_same_breaks_nothing() -> None:
    assert broken(REAL, REAL) == []


def test_says_where() -> None:
    old = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 5}}}
    new = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 4}}}
    assert narrowed(old, new) == ["/a: maximum fell to 4"]
    assert narrowed(new, old) == []


def test_a_schema_may_hold_itself() -> None:
    tree = {
        "$ref": "#/$defs/Tree",
        "$defs": {
            "Tree": {
                "title": "Tree",
                "properties": {"left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}},
            }
        },
    }
    assert narrowed(tree, tree) == []
