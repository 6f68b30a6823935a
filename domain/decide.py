"""The decider: the one door through which commands become facts.

Pure: the same state, header and commands give the same bytes, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from domain import (
    accounts,
    attempts,
    commands,
    deadlines,
    elastic,
    estimates,
    jobs,
    ledger,
    maintenance,
    maintenance_commands,
    mix,
    nodes,
    policy,
    promises,
    reservations,
)
from domain.cell import Cell
from domain.ledger import Accepted, Header, Refusal, Round
from domain.policies import commands as policy_commands
from domain.policies import controllers, lifecycle, signals, trials
from domain.pool import commands as pool_commands
from domain.pool import (
    fencing,
    guardian,
    guarding,
    handoff,
    offers,
    peers,
    rights,
    takeover,
)
from domain.refusals import Refused
from domain.scheduling import Scheduling
from domain.turn import Turn

DECIDE: Final[dict[str, Callable[[Turn, Any, int], None]]] = {
    commands.CancelJob.__name__: jobs.cancel_job,
    commands.AmendJob.__name__: jobs.amend_job,
    commands.PreemptJob.__name__: jobs.preempt_job,
    commands.RegisterNode.__name__: nodes.register_node,
    commands.ReportNode.__name__: nodes.report_node,
    commands.CordonNode.__name__: nodes.cordon_node,
    commands.DrainNode.__name__: nodes.drain_node,
    commands.RemoveNode.__name__: nodes.remove_node,
    commands.SetQuota.__name__: accounts.set_quota,
    commands.RequestReservation.__name__: reservations.request_reservation,
    commands.CancelReservation.__name__: reservations.cancel_reservation,
    maintenance_commands.PlanMaintenance.__name__: maintenance.plan_maintenance,
    maintenance_commands.CancelMaintenance.__name__: maintenance.cancel_maintenance,
    commands.ReportAttempt.__name__: attempts.report_attempt,
    commands.ReportCheckpoint.__name__: attempts.report_checkpoint,
    commands.SetPolicy.__name__: policy.set_policy,
    pool_commands.SetPeers.__name__: peers.set_peers,
    pool_commands.GrantRights.__name__: rights.grant_rights,
    commands.AdvertiseInventory.__name__: peers.see_inventory,
    commands.OfferHandoff.__name__: takeover.offer_handoff,
    commands.AnswerHandoff.__name__: handoff.answer_handoff,
    commands.WithdrawHandoff.__name__: takeover.withdraw_handoff,
    commands.ReleaseHandoff.__name__: takeover.release_handoff,
    commands.AcknowledgeHandoff.__name__: handoff.acknowledge_handoff,
    commands.ConfirmHandoff.__name__: takeover.confirm_handoff,
    commands.RequestRights.__name__: rights.request_rights,
    commands.SendRights.__name__: rights.send_rights,
    commands.GuardJob.__name__: guardian.guard_job,
    commands.AnswerGuard.__name__: guarding.answer_guard,
    commands.EndGuard.__name__: guardian.end_guard,
    pool_commands.FenceRegion.__name__: fencing.fence_region,
    policy_commands.DraftPolicy.__name__: lifecycle.draft_policy,
    policy_commands.ReplayPolicy.__name__: lifecycle.replay_policy,
    policy_commands.StartCanary.__name__: lifecycle.start_canary,
    policy_commands.ActivatePolicy.__name__: lifecycle.activate_policy,
    policy_commands.RollBackPolicy.__name__: lifecycle.roll_back_policy,
    policy_commands.ReportSignal.__name__: signals.report_signal,
}
"""By command; SubmitJob is decided from its bytes, since a known shape need not be parsed."""


def decide(cell: Cell, header: Header, accepted: Sequence[Accepted]) -> Round:
    """One round: facts, refusals and the digest of the state after it.

    Applies its facts to the cell as it goes. The cell's head is moved by `cell.believe` once the
    record is the believed one; if it never is, or if this raises, throw the cell away.
    """
    taken, before_ms = list(accepted), cell.now_ms
    cell.open(header, taken)
    turn = Turn(cell, header)
    if cell.policies:
        signals.freeze(turn, before_ms)
        trials.watch(turn)
        controllers.run(turn)
        turn.settle()
    quarantined = set(header.quarantined)
    duplicates: list[int] = []
    refusals: list[Refusal] = []
    for index, command in enumerate(taken):
        if not cell.memory.remember_command(command.source, command.id, cell.now_ms):
            duplicates.append(index)
            continue
        try:
            if (command.partition, command.offset) in quarantined:
                raise Refused("quarantined", "", "an operator took this command out")
            _obey(turn, command, index)
        except Refused as refused:
            refusals.append(Refusal(index, refused.code, refused.field, refused.message))
    turn.settle()
    nodes.expire_leases(turn)
    attempts.expire_stops(turn)
    handoff.expire_offers(turn)
    takeover.expire_claims(turn)
    fencing.keep(turn)
    guardian.adopt(turn)
    guarding.keep(turn)
    maintenance.keep(turn)
    reservations.keep(turn)
    attempts.start_ready_claims(turn)
    deadlines.keep(turn)
    mix.publish(turn)
    estimates.publish(turn)
    promises.close_windows(turn)
    scheduling = Scheduling(turn)
    scheduling.run()
    elastic.grow(turn)
    takeover.answer_offers(turn)
    offers.consider(turn, scheduling.blocked)
    cell.close()
    return Round(
        cell=cell.name,
        header=header,
        commands=taken,
        duplicates=duplicates,
        refusals=refusals,
        facts=turn.facts,
        inputs=ledger.offsets(cell.inputs, taken),
        state=cell.digest(),
        prev=cell.head.hash,
    )


def _obey(turn: Turn, command: Accepted, index: int) -> None:
    oldest = turn.header.now_ms - turn.cell.policy.duplicate_window_s * 1000
    if command.time_ms < oldest:
        rule = "it is older than the time for which duplicates are recognised"
        raise Refused("stale_command", "time", rule)
    if command.type == commands.SubmitJob.__name__:
        jobs.submit_job(turn, command, index)
        return
    handler = DECIDE.get(command.type)
    if handler is None:
        raise Refused("unknown_type", "type", f"no command is named {command.type!r}")
    parsed = turn.cell.parsed(index)
    if isinstance(parsed, commands.FromPeer):
        peers.check_sender(turn, parsed, index)
    handler(turn, parsed, index)
