"""The fold: the one door through which facts change a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from domain import (
    accounts,
    attempts,
    deadlines,
    elastic,
    estimates,
    facts,
    jobs,
    maintenance,
    mix,
    nodes,
    policy,
    promises,
    reservations,
    waiting,
)
from domain.ledger import ENGINE, Head, Round
from domain.policies import controllers, lifecycle, signals
from domain.policies import facts as policy_facts
from domain.pool import facts as pool_facts
from domain.pool import (
    fencing,
    guard_facts,
    guardian,
    guarding,
    handoff,
    peers,
    rights,
    takeover,
)

if TYPE_CHECKING:
    from domain.cell import Cell, Changes


class Divergence(Exception):
    """The fold of a believed record gave another state than the record says."""

    def __init__(self, round: int, expected: str, found: str) -> None:
        super().__init__(f"round {round}: state digest {found}, the record says {expected}")
        self.round = round


def _nothing(cell: Cell, fact: object) -> None:
    """The fact tells a reason; others of the same round change the state."""


APPLY: Final[dict[type, Callable[[Cell, Any], None]]] = {
    facts.JobAdmitted: jobs.apply_admitted,
    facts.JobAmended: jobs.apply_amended,
    facts.DeadlineInfeasible: deadlines.apply_late,
    facts.DeadlineAtRisk: deadlines.apply_late,
    facts.JobRequeued: jobs.apply_requeued,
    facts.JobClaimed: attempts.apply_claimed,
    facts.AttemptStarted: attempts.apply_started,
    facts.AttemptRunning: attempts.apply_running,
    facts.CheckpointRecorded: attempts.apply_checkpoint,
    facts.AttemptStopping: attempts.apply_stopping,
    facts.AttemptGrown: elastic.apply_grown,
    facts.AttemptShrinking: elastic.apply_shrinking,
    facts.AttemptShrunk: elastic.apply_shrunk,
    facts.AttemptReported: attempts.apply_reported,
    facts.AttemptEnded: attempts.apply_ended,
    facts.JobFinished: jobs.apply_gone,
    facts.JobFailed: jobs.apply_gone,
    facts.JobCancelled: jobs.apply_gone,
    facts.PreemptionDecided: _nothing,
    facts.ShapeBlocked: waiting.apply_blocked,
    facts.PromiseVoided: promises.apply_voided,
    facts.SlaWindowClosed: promises.apply_closed,
    facts.NodeRegistered: nodes.apply_registered,
    facts.NodeReported: nodes.apply_reported,
    facts.NodeCordoned: nodes.apply_cordoned,
    facts.NodeDraining: nodes.apply_draining,
    facts.NodeDrained: nodes.apply_drained,
    facts.NodeLost: nodes.apply_lost,
    facts.NodeRemoved: nodes.apply_removed,
    facts.QuotaSet: accounts.apply_set,
    facts.ReservationConfirmed: reservations.apply_confirmed,
    facts.ReservationClaimed: reservations.apply_claimed,
    facts.ReservationActive: reservations.apply_active,
    facts.ReservationMissed: reservations.apply_missed,
    facts.ReservationUnbound: reservations.apply_unbound,
    facts.ReservationClosing: reservations.apply_closing,
    facts.ReservationEnded: reservations.apply_ended,
    facts.MaintenancePlanned: maintenance.apply_planned,
    facts.MaintenanceBegan: maintenance.apply_began,
    facts.MaintenanceEnded: maintenance.apply_ended,
    facts.PolicySet: policy.apply_set,
    pool_facts.PeersSet: peers.apply_set,
    pool_facts.InventorySeen: peers.apply_seen,
    pool_facts.HandoffOffered: handoff.apply_offered,
    pool_facts.HandoffWithdrawn: handoff.apply_withdrawn,
    pool_facts.HandoffReleased: handoff.apply_released,
    pool_facts.HandoffCompleted: handoff.apply_completed,
    pool_facts.HandoffPrepared: takeover.apply_prepared,
    pool_facts.HandoffDeclined: takeover.apply_declined,
    pool_facts.HandoffLapsed: takeover.apply_lapsed,
    pool_facts.HandoffAccepted: takeover.apply_accepted,
    pool_facts.HandoffConfirmed: takeover.apply_confirmed,
    pool_facts.RightsGranted: rights.apply_granted,
    pool_facts.RightsRequested: rights.apply_requested,
    pool_facts.RightsSent: rights.apply_sent,
    pool_facts.RightsReceived: rights.apply_received,
    guard_facts.JobGuarded: guarding.apply_guarded,
    guard_facts.GuardKept: guarding.apply_kept,
    guard_facts.GuardEnded: guarding.apply_ended,
    guard_facts.OutcomeAsked: guarding.apply_asked,
    guard_facts.JobTaken: guarding.apply_taken,
    guard_facts.JobLeft: guarding.apply_left,
    guard_facts.CopyKept: guardian.apply_kept,
    guard_facts.CopyEnded: guardian.apply_ended,
    guard_facts.JobAdopted: guardian.apply_adopted,
    guard_facts.RegionDoubted: fencing.apply_doubted,
    guard_facts.VoteGiven: fencing.apply_vote,
    guard_facts.RegionFenced: fencing.apply_fenced,
    guard_facts.RegionTrusted: fencing.apply_trusted,
    facts.WorkloadMixPublished: mix.apply_published,
    facts.EstimateModelPublished: estimates.apply_published,
    policy_facts.PolicyDrafted: lifecycle.apply_drafted,
    policy_facts.PolicyValidated: lifecycle.apply_validated,
    policy_facts.PolicyReplayed: lifecycle.apply_replayed,
    policy_facts.PolicyCanaryStarted: lifecycle.apply_canary,
    policy_facts.PolicyShadowed: _nothing,
    policy_facts.PolicyActivated: lifecycle.apply_activated,
    policy_facts.PolicySuperseded: lifecycle.apply_superseded,
    policy_facts.PolicyRolledBack: lifecycle.apply_rolled_back,
    policy_facts.PolicyParameterMoved: controllers.apply_moved,
    policy_facts.SignalReported: signals.apply_reported,
    policy_facts.SignalsFrozen: signals.apply_frozen,
}


def apply(cell: Cell, fact: facts.AnyFact) -> None:
    APPLY[type(fact)](cell, fact)


def evolve(cell: Cell, round: Round, head: Head) -> Changes:
    """Apply a believed record, whose head is `head`, to the state before it.

    Raises Divergence if the state after it is not the one that the record names; the cell is then
    of no more use. The state is digested as this engine describes it, so a record of another engine
    is believed for its chain and signature.
    """
    cell.open(round.header, round.commands)
    known = set(round.duplicates)
    for index, accepted in enumerate(round.commands):
        if index not in known:
            cell.memory.remember_command(accepted.source, accepted.id, cell.now_ms)
    for fact in round.facts:
        apply(cell, fact)
    cell.rulebook.settle(cell)
    changes = cell.close()
    cell.look_again()
    if round.header.engine == ENGINE:
        found = cell.digest()
        if found != round.state:
            raise Divergence(round.header.round, round.state, found)
    cell.believe(head, round.inputs)
    return changes
