"""What a reader of some accounts gets to see: never a name of anyone else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.commands import Command
from domain.ledger import unseal
from domain.ports import DeadLetter, Message
from projections.access import RULES, Reader, Readers
from projections.http import create_app
from projections.services import Services
from projections.sqlite_store import SqliteStore
from projections.tables import TABLES
from tests.projections.asking import Caller
from tests.projections.conftest import CELL

MINE, OTHERS = "research", ("search", "vision", "speech")
NAME = re.compile(r"[A-Za-z0-9._-]+")


class Kept:
    """A sink and dead letters that can be looked into."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def put(self, letters: object) -> None:
        raise AssertionError("the API makes no dead letters")

    async def read(self) -> Any:
        yield DeadLetter(0, 7, "unknown_type", "type", "is not known", 1, b"of someone else")


def token(name: str) -> str:
    return f"token-of-{name}"


def reader(name: str, *accounts: str, operator: bool = False) -> Reader:
    hashed = hashlib.sha256(token(name).encode()).hexdigest()
    return Reader(actor=name, token_sha256=hashed, accounts=accounts, operator=operator)


def envelope(command: Command, source: str, id: str, actor: str | None) -> Message:
    told = {"source": source, "id": id, "actor": actor, "data": command.model_dump(mode="json")}
    return Message(json.dumps(told).encode())


READERS = Readers(
    (
        reader("mine", MINE),
        reader("all", "company"),
        reader("none"),
        reader("ops", operator=True),
    )
)


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def services(filled: SqliteStore, kept: Kept) -> Services:
    return Services(
        filled,
        CELL,
        readers=READERS,
        sink=kept,
        dead_letters=kept,
        envelope=envelope,
        resend=lambda letter: Message(letter.value),
    )


def as_(services: Services, name: str) -> Caller:
    return Caller(create_app(services), authorization=f"Bearer {token(name)}")


def every(caller: Caller, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        join = "&" if "?" in path else "?"
        answer = caller.get(f"{path}{join}limit=1000{cursor}").json()
        items += answer["items"]
        if answer["next"] is None:
            return items
        cursor = f"&cursor={answer['next']}"


@pytest.fixture(scope="module")
def theirs(services: Services) -> dict[str, set[str]]:
    """Names that the reader of MINE must never meet, by kind, as the operator sees them."""
    ops = as_(services, "ops")

    def of(kind: str, name: str) -> set[str]:
        return {i[name] for i in every(ops, f"/v1/{kind}") if i["account"] != MINE}

    names = {
        "accounts": of("accounts", "account"),
        "queues": of("queues", "queue"),
        "jobs": of("jobs", "job"),
        "reservations": of("reservations", "reservation"),
    }
    assert {*OTHERS, "company"} == names["accounts"]
    assert all(names.values())
    return names


def foreign(text: str, theirs: dict[str, set[str]]) -> set[str]:
    return set(NAME.findall(text)) & set().union(*theirs.values())


def gets(services: Services) -> Iterator[str]:
    for path, operations in create_app(services).openapi()["paths"].items():
        if "get" in operations:
            yield path


def test_every_page_is_free_of_other_names(services: Services, theirs: dict[str, set[str]]) -> None:
    mine = as_(services, "mine")
    pages = [p for p in gets(services) if "{" not in p and p.startswith("/v1/")]
    assert len(pages) > 10
    for path in pages:
        if path in ("/v1/summary", "/v1/kpis", "/v1/pool", "/v1/dead-letters"):
            text = mine.get(path).text
        else:
            text = json.dumps(every(mine, path))
        assert not foreign(text, theirs), path


def test_what_is_ones_own_is_all_there(services: Services) -> None:
    mine, ops = as_(services, "mine"), as_(services, "ops")
    for kind in ("queues", "jobs", "shapes", "reservations"):
        own = [i for i in every(ops, f"/v1/{kind}") if i["account"] == MINE]
        assert every(mine, f"/v1/{kind}") == own
    assert len(every(mine, "/v1/jobs")) > 100
    decided = [i for i in every(ops, "/v1/decisions") if i["account"] == MINE]
    seen = every(mine, "/v1/decisions")
    assert [(i["round"], i["n"]) for i in seen] == [(i["round"], i["n"]) for i in decided]
    assert len({i["event"] for i in seen}) == 3


def test_things_of_others_are_as_if_they_were_not(
    services: Services, theirs: dict[str, set[str]]
) -> None:
    mine, ops = as_(services, "mine"), as_(services, "ops")
    for kind in ("accounts", "jobs", "reservations"):
        for name in sorted(theirs[kind])[:20]:
            assert ops.get(f"/v1/{kind}/{name}").status_code == 200
            seen, made_up = mine.get(f"/v1/{kind}/{name}"), mine.get(f"/v1/{kind}/{name}x")
            assert seen.status_code == made_up.status_code == 404
            assert seen.text.replace(name, "") == made_up.text.replace(f"{name}x", "")
            filtered = mine.get(f"/v1/jobs?account={name}")
            assert filtered.json()["items"] == []


def test_histories_of_displaced_and_displacing_jobs_name_nobody_else(
    services: Services, theirs: dict[str, set[str]]
) -> None:
    mine, ops = as_(services, "mine"), as_(services, "ops")
    displaced = [j["job"] for j in every(ops, "/v1/jobs") if j["preemptions"]]
    displacing = {d["subject"] for d in every(ops, "/v1/decisions?event=PreemptionDecided")}
    told = 0
    for job in {*displaced, *displacing} - theirs["jobs"] - theirs["reservations"]:
        answer = mine.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200
        assert not foreign(answer.text, theirs)
        told += any(e["event"] == "PreemptionDecided" for e in answer.json()["events"])
    assert told > 3


def test_nodes_are_shown_without_who_is_on_them(services: Services) -> None:
    ops, mine = every(as_(services, "ops"), "/v1/nodes"), every(as_(services, "mine"), "/v1/nodes")
    assert any(node["jobs"] for node in ops)
    assert [{**node, "jobs": [], "reservations": {}} for node in ops] == mine


def test_who_reads_the_root_sees_all_below_it(services: Services) -> None:
    accounts = {i["account"] for i in every(as_(services, "all"), "/v1/accounts")}
    assert accounts == {"company", MINE, *OTHERS}
    assert every(as_(services, "none"), "/v1/accounts") == []
    assert every(as_(services, "none"), "/v1/jobs") == []


def test_strangers_get_nothing(services: Services) -> None:
    app = create_app(services)
    for header in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {token('ops')}"}):
        caller = Caller(app, **header)
        for path in gets(services):
            if path.startswith("/v1/"):
                answer = caller.get(re.sub(r"\{[^}]*\}", "1", path))
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
        assert caller.post("/v1/commands/CancelJob", json={"job": "x"}).status_code == 401
        assert caller.post("/v1/dead-letters/0-7/resend").status_code == 401
    assert Caller(app).get("/livez").status_code == 200


def test_a_table_without_a_rule_would_show_nothing() -> None:
    assert RULES.keys() == TABLES.keys(), "each table's rule is a decision"


def test_two_readers_never_share_a_token_or_a_name() -> None:
    with pytest.raises(ValueError, match="of its own"):
        Readers((reader("a"), reader("a")))
    twin = reader("b").model_copy(update={"token_sha256": reader("a").token_sha256})
    with pytest.raises(ValueError, match="of its own"):
        Readers((reader("a"), twin))


def test_readers_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    file.write_text(json.dumps({"readers": [reader("a", "x").model_dump()]}))
    found = Readers.load(file).find(f"bearer {token('a')}")
    assert found is not None
    assert found.accounts == ("x",)
    file.write_text('{"readers": [{"actor": "a", "token": "secret"}]}')
    with pytest.raises(ValueError, match=r"readers\.0\.token_sha256: Field required") as raised:
        Readers.load(file)
    assert "secret" not in str(raised.value)


SUBMIT = {"job": "new", "flavours": [{"accelerator": "h100"}], "groups": [{}]}
RESERVE = {"reservation": "r", "accelerator": "h100", "count": 1, "slots": 8}
WINDOW = {"start_ms": 2_000_000_000_000, "end_ms": 2_000_000_600_000}


@pytest.mark.parametrize(
    ("type", "body", "status"),
    [
        ("SubmitJob", {**SUBMIT, "queue": "research-batch"}, 202),
        ("SubmitJob", {**SUBMIT, "queue": "vision-batch"}, 403),
        ("SubmitJob", {**SUBMIT, "queue": "nowhere"}, 403),
        ("CancelJob", {"job": "{mine}"}, 202),
        ("CancelJob", {"job": "{theirs}"}, 403),
        ("AmendJob", {"job": "{theirs}", "priority": 3}, 403),
        (
            "RequestReservation",
            {**RESERVE, **WINDOW, "account": "research", "queues": ["research-urgent"]},
            202,
        ),
        (
            "RequestReservation",
            {**RESERVE, **WINDOW, "account": "vision", "queues": ["research-urgent"]},
            403,
        ),
        (
            "RequestReservation",
            {**RESERVE, **WINDOW, "account": "research", "queues": ["vision-batch"]},
            403,
        ),
        ("CancelReservation", {"reservation": "{reserved}"}, 403),
        ("SetQuota", {"account": "research"}, 403),
        ("PreemptJob", {"job": "{mine}"}, 403),
        ("CordonNode", {"node": "north-00"}, 403),
    ],
)
def test_who_may_give_which_command(
    services: Services,
    kept: Kept,
    theirs: dict[str, set[str]],
    type: str,
    body: dict[str, Any],
    status: int,
) -> None:
    own = every(as_(services, "mine"), "/v1/jobs")[0]["job"]
    places = {"{mine}": own, "{theirs}": min(theirs["jobs"])}
    places["{reserved}"] = min(theirs["reservations"])
    filled = {n: places.get(v, v) if isinstance(v, str) else v for n, v in body.items()}
    kept.sent.clear()
    answer = as_(services, "mine").post(f"/v1/commands/{type}", json=filled)
    assert answer.status_code == status, answer.text
    assert len(kept.sent) == (status == 202)
    assert as_(services, "ops").post(f"/v1/commands/{type}", json=filled).status_code == 202


def test_a_command_carries_who_gave_it_and_keys_of_two_readers_do_not_meet(
    services: Services, kept: Kept
) -> None:
    kept.sent.clear()
    body = {**SUBMIT, "queue": "research-batch"}
    for name in ("mine", "ops"):
        caller = as_(services, name)
        answer = caller.post(
            "/v1/commands/SubmitJob", json=body, headers={"Idempotency-Key": "one/two"}
        )
        assert answer.json()["outcome"] == f"/v1/commands/http.{name}/one%2Ftwo"
    told = [json.loads(message.value) for message in kept.sent]
    assert [(t["source"], t["id"], t["actor"]) for t in told] == [
        ("http.mine", "one/two", "mine"),
        ("http.ops", "one/two", "ops"),
    ]


def test_dead_letters_are_for_operators(services: Services) -> None:
    for name, status in (("mine", 403), ("ops", 200)):
        assert as_(services, name).get("/v1/dead-letters").status_code == status
    for name, status in (("mine", 403), ("ops", 202)):
        assert as_(services, name).post("/v1/dead-letters/0-7/resend").status_code == status


def test_outcomes_are_for_those_who_asked(services: Services, records: list[bytes]) -> None:
    command = unseal(records[-1], None)[0].commands[0]
    path = f"/v1/commands/{command.source}/{command.id}"
    assert as_(services, "ops").get(path).status_code == 200
    assert as_(services, "mine").get(path).status_code == 404
