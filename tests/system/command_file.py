"""A command file for whole-system tests: every kind of command, some that are refused, some that
come twice, some that are no commands at all. Everything follows from the seed."""

from __future__ import annotations

from random import Random
from typing import Final

from domain.commands import (
    AmendJob,
    CancelJob,
    CancelReservation,
    Command,
    CordonNode,
    DrainNode,
    PreemptJob,
    RegisterNode,
    RemoveNode,
    ReportAttempt,
    ReportCheckpoint,
    ReportNode,
    RequestReservation,
    SetPolicy,
    SetQuota,
    SubmitJob,
)
from domain.ports import Message
from domain.specs import (
    FabricPath,
    Flavour,
    PolicyParameters,
    Queue,
    Quota,
    ReplicaGroup,
    Runtime,
    Tier,
)
from streams.envelope import binary, structured
from tests import hostile

START_MS: Final = 1_735_689_600_000
NODES: Final = 16
QUEUES: Final = ("red", "green", "blue")


def capacity() -> list[Command]:
    """Accounts with their queues, and nodes of two kinds of accelerator in four racks."""
    all_ = (Quota(accelerator="h100", nominal=96), Quota(accelerator="npu", nominal=32))
    team = (
        Quota(accelerator="h100", nominal=32, borrowing_limit=32),
        Quota(accelerator="npu", nominal=8, lending_limit=4),
    )
    quotas = [SetQuota(account="company", quotas=all_)]
    quotas += [
        SetQuota(account=f"team-{q}", parent="company", quotas=team, queues=(Queue(queue=q),))
        for q in QUEUES
    ]
    nodes = [
        RegisterNode(
            node=f"n{i}",
            accelerator="h100" if i < NODES * 3 // 4 else "npu",
            kind="gpu" if i < NODES * 3 // 4 else "npu",
            slots=8,
            path=FabricPath(region="r", cluster="c", block=f"b{i // 8}", rack=f"k{i // 4}"),
        )
        for i in range(NODES)
    ]
    return [*quotas, *nodes]


def submission(random: Random, number: int) -> SubmitJob:
    """A job of one to eight replicas; one in twenty names a queue that is not there."""
    queue = random.choice(QUEUES) if random.random() < 0.95 else "nobody"
    wide, narrow = random.random() < 0.2, ReplicaGroup(slots=4)
    flavours = [Flavour(accelerator="h100"), Flavour(accelerator="npu", after_wait_s=60)]
    return SubmitJob(
        job=f"job-{number}",
        queue=queue,
        tier=random.choice(tuple(Tier)[1:]),
        priority=random.randrange(3),
        groups=(ReplicaGroup(count=random.choice((2, 4, 8)), slots=8) if wide else narrow,),
        flavours=tuple(flavours[: random.choice((1, 1, 2))]),
        runtime=Runtime(estimate_s=random.choice((60, 600)), grace_s=10),
        max_restarts=random.randrange(2),
    )


def _other(random: Random, now_ms: int, jobs: int) -> Command:
    """Anything but a submission; it may or may not fit the state that it finds."""
    job, node = f"job-{random.randrange(jobs + 2)}", f"n{random.randrange(NODES + 1)}"
    hour_ms = 3_600_000
    makers: list[Command] = [
        ReportAttempt(job=job, attempt=1, state="running"),
        ReportAttempt(job=job, attempt=1, state="finished"),
        ReportAttempt(job=job, attempt=1, state="finished"),
        ReportAttempt(job=job, attempt=random.choice((1, 2)), state="stopped"),
        ReportAttempt(job=job, attempt=1, state="failed", reason="exit 1"),
        ReportCheckpoint(job=job, attempt=1, at_ms=now_ms),
        CancelJob(job=job),
        AmendJob(job=job, priority=5),
        PreemptJob(job=job, reason="maintenance"),
        ReportNode(node=node, healthy=random.random() < 0.9),
        CordonNode(node=node, cordoned=random.random() < 0.3),
        RequestReservation(
            reservation=f"res-{random.randrange(6)}",
            account="team-red",
            accelerator="h100",
            count=2,
            slots=8,
            start_ms=now_ms + random.choice((0, 60_000)),
            end_ms=now_ms + hour_ms,
            queues=("red",),
        ),
        CancelReservation(reservation=f"res-{random.randrange(6)}"),
    ]
    rare: list[Command] = [
        DrainNode(node=node),
        RemoveNode(node=node),
        SetPolicy(parameters=PolicyParameters(min_run_s=(0, 60, 60, 60))),
    ]
    return random.choice(rare if random.random() < 0.05 else makers)


def messages(seed: int, amount: int) -> list[Message]:
    """So many messages, in the order in which they are sent; their times never go back."""
    random = Random(seed)
    bad = (message for _, message in hostile.messages(amount))
    now_ms, jobs = START_MS, 0
    first = capacity()
    sent: list[Message] = []
    while len(sent) < amount:
        chance = random.random()
        if len(sent) >= len(first) and chance < 0.06:
            sent.append(random.choice(sent))
            continue
        if len(sent) >= len(first) and chance < 0.14:
            sent.append(next(bad))
            continue
        now_ms += random.choice((0, 0, 400, 5000))
        if len(sent) < len(first):
            command = first[len(sent)]
        elif chance < 0.55:
            command, jobs = submission(random, jobs), jobs + 1
        else:
            command = _other(random, now_ms, jobs)
        make = random.choice((structured, binary))
        source = f"urn:source-{random.randrange(3)}"
        sent.append(make(command, source=source, id=f"id-{len(sent)}", time_ms=now_ms))
    return sent
