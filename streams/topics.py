"""The Kafka topics of a cell: their names and settings, and the checks that refuse wrong ones.

The ledger is the truth, so nothing may delete, compact or fork it. What is checked here is checked
at every start of a worker and by `aquifer doctor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from msgspec import Struct

from streams.topic_ids import topic_ids

KINDS: Final = ("cmd", "accepted", "ledger", "dead", "dispatch")

COMMAND_BYTES: Final = 1 << 20
"""Largest message on the topic of commands; intake has a smaller limit of its own."""

RECORD_BYTES: Final = 2 << 20
"""Largest message on the topics that we write; a round is cut far below it."""

FOREVER: Final = "-1"
WEEK_MS: Final = 7 * 86_400_000
_LEADERS_WITHIN_S: Final = 30


class TopicFault(Struct, frozen=True):
    """Something that a start must refuse."""

    topic: str
    setting: str
    found: str
    rule: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}: {self.rule}"


class WrongTopics(Exception):
    """The topics of the cell are not fit to hold its truth."""

    def __init__(self, faults: list[TopicFault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


def topic(kind: str, cell: str) -> str:
    """cmd: what anyone sends. accepted: what intake let through, one partition. dead: the rest.
    ledger: the rounds, one partition. dispatch: instructions to node agents."""
    assert kind in KINDS, kind
    return f"{kind}.{cell}"


def settings(kind: str, copies: int) -> dict[str, str]:
    """Topic settings for a number of replicas."""
    size = COMMAND_BYTES if kind == "cmd" else RECORD_BYTES
    kept_ms = FOREVER if kind in ("ledger", "dead") else str(WEEK_MS)
    return {
        "cleanup.policy": "delete",
        "retention.ms": kept_ms,
        "retention.bytes": FOREVER,
        "max.message.bytes": str(size),
        "min.insync.replicas": str(max(1, copies - 1)),
        "unclean.leader.election.enable": "false",
    }


async def create_topics(
    bootstrap: str, cell: str, *, command_partitions: int = 4, copies: int | None = None
) -> None:
    """Create the topics that are not there, and wait until each partition has a leader.

    `copies`: replicas of each; by default three, or the number of brokers if it is smaller.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if copies is None:
            copies = min(3, len((await admin.describe_cluster())["brokers"]))
        counts = {"cmd": command_partitions}
        wanted = [
            NewTopic(topic(k, cell), counts.get(k, 1), copies, topic_configs=settings(k, copies))
            for k in KINDS
        ]
        answer = await admin.create_topics(wanted)
        for name, code, message in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(f"{name} was not created: {message}")
        await _leaders(admin, [t.name for t in wanted])
    finally:
        await admin.close()


async def _leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until each partition has a leader and every broker knows every topic."""
    async with asyncio.timeout(_LEADERS_WITHIN_S):
        while True:
            described = await admin.describe_topics(names)
            parts = [t["partitions"] for t in described if not t["error_code"]]
            led = all(found and all(p["leader"] >= 0 for p in found) for found in parts)
            if len(parts) == len(names) and led and await _known_to_all(admin, names):
                return
            await asyncio.sleep(0.05)


async def _known_to_all(admin: AIOKafkaAdminClient, names: list[str]) -> bool:
    # A broker learns of a topic after the controller's answer, each at its own time.
    brokers = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
    try:
        seen = [await topic_ids(admin, names, broker) for broker in brokers]
    except KafkaError:
        return False
    return all(ids == seen[0] for ids in seen)


async def check_topics(
    bootstrap: str, cell: str, known_ids: Mapping[str, str] | None = None
) -> tuple[list[TopicFault], dict[str, str]]:
    """What is wrong with the cell's topics, and the id of each topic by its name.

    `known_ids` are the ids of an earlier check: a topic with another id was deleted and made
    again, so its offsets no longer mean what the ledger says.
    """
    names = [topic(kind, cell) for kind in KINDS]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = {t["topic"]: t for t in await admin.describe_topics(names)}
        missing = [n for n in names if described[n]["error_code"]]
        if missing:
            return [TopicFault(n, "topic", "missing", "create it") for n in missing], {}
        configs = await _configs(admin, names)
        ids = await topic_ids(admin, names)
    finally:
        await admin.close()
    faults: list[TopicFault] = []
    for kind, name in zip(KINDS, names, strict=True):
        faults += _check(kind, name, described[name]["partitions"], configs[name])
        known = (known_ids or {}).get(name, ids[name])
        if ids[name] != known:
            rule = f"it was {known}: the topic was made anew and its offsets began again"
            faults.append(TopicFault(name, "topic id", ids[name], rule))
    return faults, ids


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, message, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(f"settings of {name}: {message}")
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


def _check(
    kind: str, name: str, partitions: list[dict[str, Any]], config: dict[str, str]
) -> list[TopicFault]:
    rules: list[tuple[str, bool, str]] = [
        ("cleanup.policy", config["cleanup.policy"] == "delete", "compaction loses records"),
        (
            "max.message.bytes",
            int(config["max.message.bytes"]) >= int(settings(kind, 1)["max.message.bytes"]),
            f"at least {settings(kind, 1)['max.message.bytes']}, or what is valid is refused",
        ),
        (
            "unclean.leader.election.enable",
            config["unclean.leader.election.enable"] == "false",
            "a stale replica as leader loses acknowledged records",
        ),
    ]
    if min(len(p["replicas"]) for p in partitions) >= 3:
        safe = int(config["min.insync.replicas"]) >= 2
        rule = "at least 2 with three replicas, or one disk holds the only copy"
        rules.append(("min.insync.replicas", safe, rule))
    if kind == "ledger":
        for setting in ("retention.ms", "retention.bytes"):
            kept = config[setting] == FOREVER
            rules.append((setting, kept, "the ledger is kept for ever: -1"))
    faults = [TopicFault(name, s, config[s], rule) for s, holds, rule in rules if not holds]
    if kind in ("ledger", "accepted") and len(partitions) != 1:
        rule = "one partition: it has one order"
        faults.append(TopicFault(name, "partitions", str(len(partitions)), rule))
    return faults
