"""The AsyncAPI 3.0 document: a cell's topics, what is on them, and how a message is signed."""

from __future__ import annotations

import inspect
from typing import Any, Final

from domain.commands import COMMANDS, VERSION
from streams import dispatch, envelope, kafka, kafka_dispatch, topics
from streams.intake import MAX_HEADER, MAX_HEADERS, MAX_VALUE

Json = dict[str, Any]

JSON: Final = "application/json"
BINDING: Final = "0.5.0"
TIME: Final = {"type": "string", "format": "date-time"}
ATTRIBUTE: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": envelope.MAX_ATTRIBUTE,
    "pattern": "^[^\\x00-\\x20\\x7f-\\x9f]*$",
}
SIGNED: Final = (
    "An Ed25519 signature in hex, required where a table of actors is set. In structured mode it "
    "is over the whole value. In binary mode it is over the attributes type, source, id and time, "
    "each followed by a line feed, and then the value. The key is named by `keyid`, and the actor "
    "is whose key it is: a body never names who speaks."
)
ACTOR: Final = "Set by a gateway that has authenticated the caller; heeded where nothing is signed."
ID: Final = "New for each command of a source: a repeated one gets the first one's answer."
DESCRIPTION: Final = f"""A cell takes commands in and writes decisions out.

Commands are CloudEvents 1.0, structured or binary. Delivery is at least once in both directions: a
command that comes twice, with the same source and id, has one outcome. A value has at most
{MAX_VALUE} bytes, and a message at most {MAX_HEADERS} headers of at most {MAX_HEADER} bytes each.
What is not accepted goes to the dead letters with its reason. The outcome of an accepted command is
in the ledger: facts or a refusal, both of which refer to the command's place in its round.
"""


def command_path(name: str) -> str:
    """Where a command's schema is, from the folder of contracts."""
    return f"commands/{name}.v{VERSION}.json"


def document(written: int) -> Json:
    """The whole document; `written` is the version of the schemas of what a cell writes."""
    messages = {}
    for name in COMMANDS:
        messages[f"{name}.v{VERSION}.structured"] = _structured(name)
        messages[f"{name}.v{VERSION}.binary"] = _binary(name)
    on_cmd = list(messages)
    own = {name: f"{name}.v{written}" for name in ("accepted", "deadLetter", "record", "told")}
    messages |= {own[name]: made for name, made in _written(written).items()}
    channels = {
        "cmd": _channel("cmd", "Commands, from anyone who may give them.", on_cmd),
        "accepted": _channel("accepted", "Commands that intake let through.", [own["accepted"]]),
        "dead": _channel("dead", "What intake did not accept, as it came.", [own["deadLetter"]]),
        "ledger": _channel("ledger", "The truth: a record a round.", [own["record"]]),
        "dispatch": _channel("dispatch", "What node agents are told.", [own["told"]]),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Aquifer",
            "version": f"{VERSION}.{written}",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "channels": channels,
        "operations": {
            "takeCommand": _operation("receive", "cmd", "Intake checks and passes a command on."),
            "takeAccepted": _operation("receive", "accepted", "The decider takes commands in."),
            "passOn": _operation("send", "accepted", "Intake lets a command through."),
            "setAside": _operation("send", "dead", "Intake sets aside what it does not accept."),
            "decide": _operation("send", "ledger", "The decider appends a round."),
            "instruct": _operation("send", "dispatch", "Dispatch tells a believed round."),
        },
        "components": {"messages": messages},
    }


def _channel(kind: str, summary: str, names: list[str]) -> Json:
    one = kind in ("accepted", "ledger")
    binding: Json = {"bindingVersion": BINDING, "topicConfiguration": _settings(kind)}
    if one:
        binding["partitions"] = 1
    return {
        "address": topics.topic(kind, "{cell}"),
        "summary": summary,
        "parameters": {"cell": {"description": "The cell's name."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": binding},
    }


def _settings(kind: str) -> Json:
    """The topic settings that a start insists on, or creates the topic with."""
    given = topics.settings(kind, 3)
    return {
        "cleanup.policy": [given["cleanup.policy"]],
        "retention.ms": int(given["retention.ms"]),
        "retention.bytes": int(given["retention.bytes"]),
        "max.message.bytes": int(given["max.message.bytes"]),
    }


def _operation(action: str, channel: str, summary: str) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
    }


def _structured(name: str) -> Json:
    properties = {
        "specversion": {"const": "1.0"},
        "type": {"const": envelope.type_of(name)},
        "source": {**ATTRIBUTE, "description": "The producer."},
        "id": {**ATTRIBUTE, "description": ID},
        "time": TIME,
        "datacontenttype": {"const": JSON},
        "keyid": {**ATTRIBUTE, "description": "The key that signed."},
        "data": {"$ref": command_path(name)},
    }
    payload = {
        "type": "object",
        "properties": properties,
        "required": ["specversion", "type", "source", "id", "time", "data"],
    }
    headers = {"content-type": {"const": envelope.STRUCTURED}, **_said()}
    return _message(name, f"{name}, structured", envelope.STRUCTURED, headers, payload)


def _binary(name: str) -> Json:
    headers = {
        "ce_specversion": {"const": "1.0"},
        "ce_type": {"const": envelope.type_of(name)},
        "ce_source": {**ATTRIBUTE, "description": "The producer."},
        "ce_id": {**ATTRIBUTE, "description": ID},
        "ce_time": TIME,
        "ce_keyid": {**ATTRIBUTE, "description": "The key that signed."},
        "content-type": {"const": JSON},
        **_said(),
    }
    payload = {"$ref": command_path(name)}
    made = _message(name, f"{name}, binary", JSON, headers, payload)
    made["headers"]["required"] = [f"ce_{n}" for n in ("specversion", "type", "source", "id")]
    made["headers"]["required"].append("ce_time")
    return made


def _said() -> Json:
    """Headers of both modes that say who speaks."""
    signature = {"type": "string", "pattern": "^[0-9a-f]{128}$", "description": SIGNED}
    actor = {**ATTRIBUTE, "description": ACTOR}
    return {envelope.SIGNATURE: signature, envelope.ACTOR: actor}


def _message(name: str, title: str, type_: str, headers: Json, payload: Json) -> Json:
    key = {"type": "string", "description": "The source: what it sends stays in order."}
    required = ["content-type"] if type_ == envelope.STRUCTURED else []
    return {
        "name": envelope.type_of(name),
        "title": title,
        "summary": (inspect.getdoc(COMMANDS[name]) or "").split("\n\n")[0].replace("\n", " "),
        "contentType": type_,
        "headers": {"type": "object", "properties": headers, "required": required},
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": BINDING}},
    }


def _written(version: int) -> dict[str, Json]:
    """What a cell writes itself."""
    round_header = {"type": "string", "pattern": "^[0-9]+$"}
    reason = {"type": "string", "contentMediaType": JSON}
    reason["description"] = (
        "The first header: where the message stood and why it was not accepted, as in "
        f"dead-letter.v{version}.json. Value, key and other headers are the message's own."
    )
    told = {"type": "string", "description": "The job's name."}
    text = " ".join((inspect.getdoc(dispatch.Kill) or "").split())
    return {
        "accepted": {
            "title": "Accepted command",
            "summary": "Intake's words for the decider: checked, with the actor that it found.",
            "payload": {"$ref": f"accepted.v{version}.json"},
        },
        "deadLetter": {
            "title": "Dead letter",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "properties": {kafka.LETTER_HEADER: reason},
                "required": [kafka.LETTER_HEADER],
            },
            "payload": {"description": "The message's value as it came, whatever that is."},
        },
        "record": {
            "title": "Ledger record",
            "summary": "Believed if it extends the chain and the cell's key signed it.",
            "payload": {"$ref": f"ledger-record.v{version}.json"},
        },
        "told": {
            "title": "Dispatch instruction",
            "summary": f"Start, Stop or Kill an attempt. Kill: {text}",
            "headers": {
                "type": "object",
                "properties": {kafka_dispatch.ROUND_HEADER: round_header},
                "required": [kafka_dispatch.ROUND_HEADER],
            },
            "payload": {"$ref": f"dispatch-instruction.v{version}.json"},
            "bindings": {"kafka": {"key": told, "bindingVersion": BINDING}},
        },
    }
