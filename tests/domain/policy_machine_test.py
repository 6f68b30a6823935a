"""Random histories under random policies: quota, gangs and capacity hold, whatever rules say."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from domain import placement
from domain.cell import Cell
from domain.decide import decide
from domain.ledger import ENGINE, Accepted, Header
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    ReportSignal,
    RollBackPolicy,
    StartCanary,
)
from domain.policies.documents import PolicyDocument
from domain.shapes import Need
from tests.domain.machine_test import Machine
from tests.domain.naive import Naive
from tests.domain.policy_sets import policies


class UnderLimits(Naive):
    """Quota as accounts have it now: rules may set other limits than those that were asked for."""

    machine: PolicyMachine

    def limit(self, account: str, type_: str, name: str) -> int | None:
        if name == "nominal":
            return super().limit(account, type_, name)
        limits: dict[str, int] = getattr(self.machine.given.cell.accounts[account], name)
        return limits.get(type_)


class PolicyMachine(Machine):
    """Policies are drafted, tried, activated and rolled back between other commands."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = UnderLimits()
        self.naive.machine = self
        self.versions: dict[str, int] = {}

    def drafted(self, document: PolicyDocument) -> dict[str, Any]:
        """A new version of the policy with what the document says."""
        version = self.versions[document.policy] = self.versions.get(document.policy, 0) + 1
        self.send(DraftPolicy(document=document.model_copy(update={"version": version})))
        return {"policy": document.policy, "version": version}

    @rule(documents=policies(most=2), watch=st.booleans())
    def activate(self, documents: list[PolicyDocument], watch: bool) -> None:
        for document in documents:
            self.send(ActivatePolicy(**self.drafted(document), watch_s=600 if watch else None))

    @rule(documents=policies(most=1), mode=st.sampled_from(("slice", "shadow")))
    def try_out(self, documents: list[PolicyDocument], mode: Any) -> None:
        named = self.drafted(documents[0])
        self.send(StartCanary(**named, mode=mode, slice_ppm=500_000, for_s=600))

    @rule(name=st.sampled_from(("p0", "p1")))
    def roll_back(self, name: str) -> None:
        self.send(RollBackPolicy(policy=name))

    @rule(value=st.integers(0, 20))
    def report_signal(self, value: int) -> None:
        self.send(ReportSignal(signal="x", value=value))

    @rule(work=st.sampled_from((1, 3, 10)))
    def decide_within_a_budget(self, work: int) -> None:
        """No rule makes a round try more places than it may."""
        taken, self.pending = self.pending, []
        round = self._with_few(taken, work)
        self.sent.extend(taken)
        self.naive.follow(round)
        self.recount.follow(self.given.cell, round)
        self.owed.follow(self.given.cell, round)
        self.check_reasons(round)

    def _with_few(self, taken: list[Accepted], work: int) -> Any:
        places, place = 0, placement.place

        def counted(cell: Cell, need: Need) -> placement.Choice | placement.Blocked:
            nonlocal places
            places += 1
            return place(cell, need)

        twin = Cell.restore(self.given.cell.snapshot())
        header = Header(twin.head.round + 1, self.given.now_ms, work, ENGINE)
        with (
            patch("domain.scheduling.Scheduling._short_of_slots", lambda *_: None),
            patch("domain.scheduling.placement.place", counted),
        ):
            decide(twin, header, taken)
        assert places <= work
        round = self.given.decide(taken, work=work)
        self.check_along(round)
        return round


class LongPolicyMachine(PolicyMachine):
    """More and longer histories, always the same ones."""


PolicyMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LongPolicyMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHistoriesUnderPolicies = PolicyMachine.TestCase
TestLongHistoriesUnderPolicies = pytest.mark.slow(LongPolicyMachine.TestCase)
