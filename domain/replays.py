"""The gate of a policy: what a replay of recorded demand found, if the one in force asks for it.

A replay is deterministic: whoever has the ledger can make it again from the rounds that it names,
and finds the same report, or that the one who gave the command did not tell the truth. What the
decider checks is what it can know: that the report is about these parameters, about this policy in
force, about rounds that this cell has decided, and that no gate failed.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from domain.ledger import canonical
from domain.refusals import Refused
from domain.specs import Model, PolicyParameters

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hex."""
Gate = Literal["promises", "completion", "losses"]
Number = Annotated[int, Field(ge=0, le=1 << 52)]


class Replay(Model):
    """What a what-if found about the parameters that a command proposes."""

    report: Digest
    """Of the report's canonical JSON."""
    parameters: Digest
    """Of the canonical JSON of the parameters that it supposed."""
    policy_version: Number
    """In force where it was asked."""
    first_round: Number
    last_round: Number
    passed: Annotated[tuple[Gate, ...], Field(max_length=16)] = ()
    failed: Annotated[tuple[Gate, ...], Field(max_length=16)] = ()


def digest_of(parameters: PolicyParameters) -> str:
    return hashlib.sha256(canonical(parameters.model_dump(mode="json"))).hexdigest()


def require(replay: Replay | None, parameters: PolicyParameters, version: int, head: int) -> None:
    """Raise Refused unless the replay speaks for the parameters; `head` is the last round."""
    if replay is None:
        rule = "the policy in force asks for a replay of recorded demand with the new parameters"
        raise Refused("replay_required", "replay", rule)
    check(replay, digest_of(parameters), version, head)


def check(replay: Replay, digest: str, version: int, head: int) -> None:
    """Raise Refused unless the replay speaks for what has this digest."""
    if replay.parameters != digest:
        raise Refused("replay_failed", "replay.parameters", "it is about other parameters")
    if replay.policy_version != version:
        raise Refused("replay_failed", "replay.policy_version", "it is about another policy")
    if not 1 <= replay.first_round <= replay.last_round <= head:
        raise Refused("replay_failed", "replay.last_round", "the cell has not these rounds")
    if replay.failed or not replay.passed:
        raise Refused("replay_failed", "replay.failed", "a gate failed, or none was tried")
