"""The commands of policies: draft, replay, canary, activate, roll back; and signals of others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from domain.policies.documents import Id, PolicyDocument, Version
from domain.replays import Replay
from domain.specs import Model, Name, Text

Watch = Annotated[int, Field(ge=60, le=30 * 86_400)]


class DraftPolicy(Model):
    """Propose a version of a policy; it is checked, and its tests are run, in the same round."""

    type: Literal["DraftPolicy"] = "DraftPolicy"
    document: PolicyDocument
    reason: Text = ""


class ReplayPolicy(Model):
    """Recorded demand was decided again with the version."""

    type: Literal["ReplayPolicy"] = "ReplayPolicy"
    policy: Id
    version: Version
    replay: Replay
    """`parameters` is the digest of the document."""


class StartCanary(Model):
    """Try a version on a part of the queues, or only beside the one in force."""

    type: Literal["StartCanary"] = "StartCanary"
    policy: Id
    version: Version
    mode: Literal["shadow", "slice"] = "slice"
    slice_ppm: Annotated[int, Field(ge=1, le=999_999)] = 100_000
    """Of all queues, drawn by their names: the same ones each time."""
    for_s: Watch = 3600
    then: Literal["activate", "stop"] = "activate"
    """What becomes of it if its gates have held."""


class ActivatePolicy(Model):
    """Let a version count, instead of the one in force."""

    type: Literal["ActivatePolicy"] = "ActivatePolicy"
    policy: Id
    version: Version
    watch_s: Watch | None = None
    """Its gates are watched for so long."""
    reason: Text = ""


class RollBackPolicy(Model):
    """Let the version before count again, or none; or end a canary."""

    type: Literal["RollBackPolicy"] = "RollBackPolicy"
    policy: Id
    reason: Text = ""


class ReportSignal(Model):
    """A number from outside that rules read as `signal.reported['NAME']`: a price, carbon."""

    type: Literal["ReportSignal"] = "ReportSignal"
    signal: Name
    value: Annotated[int, Field(ge=0, le=1 << 40)]


PolicyCommand = (
    DraftPolicy | ReplayPolicy | StartCanary | ActivatePolicy | RollBackPolicy | ReportSignal
)
