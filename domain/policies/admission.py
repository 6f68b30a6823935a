"""Rules about what comes in: jobs, reservations, and jobs that leave for a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from domain.policies import rows
from domain.policies.attributes import Phase
from domain.policies.rulebook import CACHED_MAX
from domain.policies.ruling import Verdict
from domain.refusals import Refused
from domain.specs import MAX_S, TIERS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import RequestReservation, SubmitJob
    from domain.jobs import Job
    from domain.pool.state import Peer


AS_ASKED: Final = Verdict()


def judge(
    cell: Cell, key: bytes, spec: SubmitJob, own: dict[str, Any], estimate: int | None
) -> Verdict:
    """Raise Refused if a rule denies the job. `spec` is one of its shape, `own` its own fields."""
    book = cell.rulebook
    verdict = book.verdicts.get(key)
    if verdict is None:
        verdict = _judged(cell, key, spec, own, estimate)
        if book.admits_alike and len(book.verdicts) < CACHED_MAX:
            book.verdicts[key] = verdict
    return verdict


def _judged(
    cell: Cell, key: bytes, spec: SubmitJob, own: dict[str, Any], estimate: int | None
) -> Verdict:
    book, queue = cell.rulebook, cell.queues[spec.queue]

    def row(with_own: bool) -> tuple[int, ...]:
        shared = rows.of_spec(book.names, spec, queue)
        if not with_own:
            return shared
        return shared + rows.of_submission(book.names, own, estimate, cell.now_ms)

    outcome, why = book.admission(key, row)
    if not outcome:
        return AS_ASKED
    if "deny" in outcome:
        name = why["deny"][0][0]
        reason = book.reason_of(name)
        raise Refused("denied_by_policy", "", f"{name}: {reason or 'a rule of a policy denies it'}")
    tier, priority = outcome.get("tier"), outcome.get("priority")
    changed = {
        "tier": str(TIERS[tier]) if tier is not None and TIERS[tier] != spec.tier else None,
        "priority": priority if priority != spec.priority else None,
    }
    rules = tuple(why[slot][0][0] for slot, value in changed.items() if value is not None)
    return Verdict(changed["tier"], changed["priority"], rules)  # type: ignore[arg-type]


def check_reservation(cell: Cell, command: RequestReservation) -> None:
    """Raise Refused if a rule denies the reservation."""
    if Phase.RESERVE not in cell.rulebook.by_phase:
        return
    book, account = cell.rulebook, cell.accounts[command.account]
    row = rows.of_reservation(book.names, command, account, cell.now_ms)
    _, name, reason = book.ask(Phase.RESERVE, row)
    if name:
        raise Refused("denied_by_policy", "", f"{name}: {reason or 'a rule of a policy denies it'}")


class Leaving:
    """What rules say of a job that could be offered to peers."""

    def __init__(self, cell: Cell, job: Job) -> None:
        self._book = cell.rulebook
        self._asked = Phase.HANDOFF in self._book.by_phase
        if self._asked:
            shape, own = job.shape, {"job": job.id}
            row = rows.of_spec(self._book.names, shape.spec, shape.queue)
            more = rows.of_submission(self._book.names, own, job.estimate_s, cell.now_ms)
            left_s = min(MAX_S, max(0, job.deadline_ms - cell.now_ms) // 1000)
            self._row = row + more[:-2] + (int(job.deadline_ms > 0), left_s)

    def threshold_s(self, peer: Peer, threshold_s: int) -> int | None:
        """What has to be gained by going to the peer; None: it may not go there."""
        if not self._asked:
            return threshold_s
        outcome, denied, _ = self._book.ask(
            Phase.HANDOFF, self._row, rows.of_peer(self._book.names, peer)
        )
        return None if denied else outcome.get("threshold", threshold_s)
