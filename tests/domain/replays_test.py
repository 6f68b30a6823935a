"""The gate of a policy: without a replay that speaks for it, it is not set."""

from __future__ import annotations

from typing import Any

import pytest

from domain.commands import SetPolicy
from domain.facts import PolicySet
from domain.replays import Replay, digest_of
from domain.specs import PolicyParameters
from tests.domain.given import Given

GATED = PolicyParameters(require_replay=True)
NEXT = PolicyParameters(require_replay=True, preemption=False)


def given_gate() -> Given:
    given = Given()
    given.round(SetPolicy(parameters=GATED))
    given.round(after_s=1)
    assert given.cell.policy_version == 1
    return given


def replay(**other: Any) -> Replay:
    fields: dict[str, Any] = {
        "report": "0" * 64,
        "parameters": digest_of(NEXT),
        "policy_version": 1,
        "first_round": 1,
        "last_round": 2,
        "passed": ("promises", "completion"),
    }
    return Replay(**(fields | other))


def test_a_policy_that_was_replayed_is_set() -> None:
    given = given_gate()
    assert given.facts(SetPolicy(parameters=NEXT, replay=replay())) == [PolicySet(0, 2)]
    assert given.cell.policy == given.twin.policy == NEXT
    # the same report does not open the gate again: it is about the policy before
    again = SetPolicy(parameters=NEXT, replay=replay())
    assert given.refusal(again) == "replay_failed"


def test_without_a_replay_it_is_refused() -> None:
    assert given_gate().refusal(SetPolicy(parameters=NEXT)) == "replay_required"


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": digest_of(GATED)},
        {"policy_version": 0},
        {"first_round": 0},
        {"first_round": 2, "last_round": 1},
        {"last_round": 3},
        {"failed": ("losses",)},
        {"passed": ()},
    ],
)
def test_a_replay_of_something_else_or_that_failed_is_refused(other: dict[str, Any]) -> None:
    given = given_gate()
    command = SetPolicy(parameters=NEXT, replay=replay(**other))
    assert given.refusal(command) == "replay_failed"
    assert given.cell.policy == GATED


def test_a_policy_that_asks_for_none_takes_any() -> None:
    given = Given()
    wrong = replay(failed=("losses",))
    assert given.facts(SetPolicy(parameters=NEXT, replay=wrong)) == [PolicySet(0, 1)]
