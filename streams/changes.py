"""What a what-if changes: the policy, nodes, or quotas. Of these the recorded commands say no more.

A change counts from the window's start. What it names is as the change says for all of the window:
a recorded command for the same thing is put right, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from domain.cell import Cell
from domain.commands import Command, RegisterNode, RemoveNode, SetPolicy, SetQuota
from domain.ledger import Accepted, canonical
from domain.policies import lifecycle
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    ReplayPolicy,
    RollBackPolicy,
    StartCanary,
)
from domain.policies.documents import PolicyDocument
from domain.replays import Replay
from domain.specs import PolicyParameters
from streams.envelope import body_of
from streams.learn import Learned

_body: Final = msgspec.json.Decoder(dict[str, Any]).decode


ABOUT_POLICIES: Final = tuple(
    c.__name__ for c in (DraftPolicy, ReplayPolicy, StartCanary, ActivatePolicy, RollBackPolicy)
)


class Change(Struct):
    policy: PolicyParameters | None = None
    nodes: dict[str, RegisterNode | None] = {}
    """By name; None: the node is not there."""
    quotas: dict[str, SetQuota] = {}
    """By account."""
    documents: dict[str, PolicyDocument] = {}
    """By policy: what counts of it."""

    def added(self, cell: Cell, learned: Learned) -> Iterator[Command]:
        """What has to be said at the window's start; the rest is put right where it is recorded."""
        if self.policy is not None and self.policy != cell.policy:
            yield SetPolicy(parameters=self.policy)
        for name, document in self.documents.items():
            known = cell.policies.get(name)
            if known is None or document.version not in known.versions:
                yield DraftPolicy(document=document)
            if cell.policy.require_replay:
                yield _as_if_replayed(cell, document)
            if known is None or known.active != document.version:
                yield ActivatePolicy(policy=name, version=document.version)
        for account, quota in self.quotas.items():
            if account in cell.accounts or account not in learned.accounts:
                yield quota
        for name, spec in self.nodes.items():
            if spec is None:
                if name in cell.nodes:
                    yield RemoveNode(node=name)
            elif name in cell.nodes or name not in learned.nodes:
                yield spec.model_copy(update={"lease_s": 0})

    def of(self, command: Accepted) -> Accepted | None:
        """The command as the change has it; None if it is left out."""
        if command.type == SetPolicy.__name__ and self.policy is not None:
            said = SetPolicy.model_validate_json(bytes(command.data))
            return command if said.parameters == self.policy else None
        if command.type in ABOUT_POLICIES and self.documents:
            body = _body(command.data)
            name = body["policy"] if "policy" in body else body["document"]["policy"]
            return None if name in self.documents else command
        if command.type == SetQuota.__name__ and self.quotas:
            quota = self.quotas.get(_body(command.data)["account"])
            return command if quota is None else _with(command, quota)
        if command.type.endswith("Node") and self.nodes:
            name = _body(command.data)["node"]
            if name in self.nodes:
                spec = self.nodes[name]
                if spec is None:
                    return None
                if command.type == RegisterNode.__name__:
                    lease_s = _body(command.data).get("lease_s", 0)
                    return _with(command, spec.model_copy(update={"lease_s": lease_s}))
        return command


def _as_if_replayed(cell: Cell, document: PolicyDocument) -> ReplayPolicy:
    """What the policy in force asks for is what is being made; it is supposed to be there."""
    replay = Replay(
        report="0" * 64,
        parameters=lifecycle.digest_of(document),
        policy_version=cell.policy_version,
        first_round=1,
        last_round=1,
        passed=("promises",),
    )
    return ReplayPolicy(policy=document.policy, version=document.version, replay=replay)


def _with(command: Accepted, instead: Command) -> Accepted:
    return replace(command, data=Raw(canonical(body_of(instead))))
