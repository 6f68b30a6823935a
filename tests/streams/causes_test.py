"""Who caused what, in a ledger that was made for it."""

from __future__ import annotations

from domain import commands as c
from domain import specs
from streams.causes import causes
from tests.domain.given import Given, job, node


def test_the_commands_that_speak_of_a_thing() -> None:
    given = Given()
    first = given.round(
        c.SetQuota(
            account="team",
            quotas=(specs.Quota(accelerator="h100", nominal=8),),
            queues=(specs.Queue(queue="q"),),
        ),
        node("n1"),
    )
    submitted = given.accept(job("j"), "same")
    second = given.decide([submitted, given.accept(job("other"))])
    third = given.decide([submitted, given.accept(c.CancelJob(job="j", reason="q is full"))])
    last = given.round(c.PreemptJob(job="j"))

    def told(name: str) -> list[tuple[int, str, str]]:
        return [
            (cause.round, cause.type, cause.outcome)
            for round in (first, second, third, last)
            for cause in causes(round, name)
        ]

    assert told("j") == [
        (2, "SubmitJob", "accepted"),
        (3, "SubmitJob", "duplicate"),
        (3, "CancelJob", "accepted"),
        (4, "PreemptJob", "job_not_running"),
    ]
    assert told("team") == [(1, "SetQuota", "accepted")]
    assert told("n1") == [(1, "RegisterNode", "accepted")]
    assert [t[1] for t in told("q")] == ["SetQuota", "SubmitJob", "SubmitJob", "SubmitJob"]
    assert told("h100") == []
    assert {c.actor for c in causes(second, "j")} == {"someone"}
