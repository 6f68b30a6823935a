"""docs/contracts is what the code says, and keeps what was released."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aquifer import contracts
from domain.commands import COMMANDS
from domain.facts import FACTS
from domain.ports import DeadLetter
from streams import envelope, kafka
from streams.topics import KINDS
from tests.contract.compatibility import broken
from tests.streams.cells import submit

MADE = contracts.documents()

NEW = {
    "AcknowledgeHandoff",
    "ActivatePolicy",
    "AdvertiseInventory",
    "AnswerGuard",
    "AnswerHandoff",
    "CancelMaintenance",
    "ConfirmHandoff",
    "DraftPolicy",
    "EndGuard",
    "FenceRegion",
    "GrantRights",
    "GuardJob",
    "OfferHandoff",
    "PlanMaintenance",
    "ReleaseHandoff",
    "ReplayPolicy",
    "ReportSignal",
    "RequestRights",
    "RollBackPolicy",
    "SendRights",
    "SetPeers",
    "StartCanary",
    "WithdrawHandoff",
}
"""Commands that no release has brought yet; the next one empties this."""


def _files(name: str) -> dict[str, str]:
    return {path: (contracts.FOLDER / path).read_text() for path in contracts.read(_at(name))}


def _at(name: str) -> Any:
    return contracts.FOLDER / name


def test_the_files_are_up_to_date() -> None:
    stored = _files(".")
    assert stored.keys() == MADE.keys(), "run `python -m aquifer.contracts`"
    old = [path for path, text in stored.items() if text != contracts.text_of(MADE[path])]
    assert old == [], "run `python -m aquifer.contracts`"


def test_what_was_released_is_kept() -> None:
    released = contracts.read(_at(contracts.RELEASED))
    assert broken(released, MADE) == []


def test_all_that_there_is_has_been_released_once() -> None:
    released = contracts.read(_at(contracts.RELEASED))
    commands = {path for path in released if path.startswith("commands/")}
    assert commands == {f"commands/{name}.v1.json" for name in COMMANDS.keys() - NEW}
    assert {f"{name}.v1.json" for name in ("facts", "ledger-record")} <= released.keys()
    assert "asyncapi.json" in released


def test_every_kind_of_fact_is_described() -> None:
    facts = MADE["facts.v1.json"]["$defs"]
    assert facts.keys() == FACTS.keys() | {
        "Why", "Victim", "OfferWhy", "MixEntry", "EstimateOf", "Counted",
    }  # fmt: skip


def test_units_and_meanings_are_in_the_schemas() -> None:
    submitted = MADE["commands/SubmitJob.v1.json"]
    assert submitted["properties"]["max_restarts"]["description"].startswith("Attempts that failed")
    assert submitted["x-rules"] == ["groups_differ"]
    wanted = MADE["facts.v1.json"]["$defs"]["Victim"]["properties"]["cost_slot_s"]
    assert wanted["description"].startswith("Slot-seconds lost")


def test_every_topic_has_a_channel() -> None:
    channels = MADE["asyncapi.json"]["channels"]
    assert {channel["address"] for channel in channels.values()} == {f"{k}.{{cell}}" for k in KINDS}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("path", MADE)
def test_every_reference_leads_somewhere(path: str) -> None:
    for reference in _references(MADE[path]):
        file, _, inside = reference.partition("#")
        target: Any = MADE[path] if not file else MADE[file]
        for step in filter(None, inside.split("/")):
            target = target[step]
        assert isinstance(target, dict)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_messages_are_as_described(mode: str) -> None:
    """Attributes and headers of a signed message, made by the real envelope."""
    make = envelope.structured if mode == "structured" else envelope.binary
    message = make(submit("j"), source="s", id="1", time_ms=0, key_id="k", sign=lambda _: bytes(64))
    described = MADE["asyncapi.json"]["components"]["messages"][f"SubmitJob.v1.{mode}"]
    headers = {name: value.decode() for name, value in message.headers}
    _conforms(described["headers"], headers)
    assert headers["content-type"] == described["contentType"]
    if mode == "structured":
        _conforms(described["payload"], msgspec.json.decode(message.value))


def _conforms(schema: dict[str, Any], value: dict[str, Any]) -> None:
    assert set(schema["required"]) <= value.keys() <= schema["properties"].keys()
    for name, field in value.items():
        assert schema["properties"][name].get("const", field) == field


def test_the_topics_of_intake_hold_what_is_described() -> None:
    stored = kafka._Stored.__struct_fields__
    assert set(stored) == MADE["accepted.v1.json"]["properties"].keys()
    reason = kafka._Reason.__struct_fields__
    assert set(reason) == MADE["dead-letter.v1.json"]["properties"].keys()
    assert set(DeadLetter.__struct_fields__) - set(reason) == {"value", "headers", "key"}
