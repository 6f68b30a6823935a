"""To what use slot-seconds are put: by cases. The random histories recount all of them."""

from __future__ import annotations

from domain import commands as c
from domain import specs
from domain.accounting import NOBODY, Use
from domain.cell import Cell
from domain.decide import decide
from domain.ledger import canonical
from tests.domain.given import Given, job, node

DAY_S = 86_400


def quota(nominal: int = 8) -> c.SetQuota:
    return c.SetQuota(
        account="team",
        quotas=(specs.Quota(accelerator="h100", nominal=nominal),),
        queues=(specs.Queue(queue="q"),),
    )


def used(given: Given, owner: str = "team") -> dict[str, int]:
    """Slot-seconds by use, those that are not 0."""
    book = given.cell.books.get((owner, "h100"))
    totals = book.totals(given.cell.now_ms) if book is not None else []
    found = {use.name.lower(): n // 1_000_000 for use, n in zip(Use, totals, strict=False)}
    return {use: n for use, n in found.items() if n}


def running(**runtime: int) -> Given:
    """A job of 4 slots that started at once and runs after 10 s."""
    given = Given()
    one = job("a", slots=4, runtime=specs.Runtime(**runtime))
    given.round(quota(), node("n1"), one)
    given.round(report("running"), after_s=10)
    return given


def report(state: str, attempt: int = 1) -> c.ReportAttempt:
    return c.ReportAttempt(job="a", attempt=attempt, state=state)  # type: ignore[arg-type]


def test_a_start_is_overhead_and_the_rest_of_the_node_is_free() -> None:
    given = running()
    given.round(report("finished"), after_s=100)
    assert used(given) == {"overhead": 40, "productive": 400}
    assert used(given, NOBODY) == {"free": 4 * 110}


def test_what_fails_is_lost_since_its_last_checkpoint_whose_writing_is_overhead() -> None:
    given = running(checkpoint_write_s=5)
    checkpoint = c.ReportCheckpoint(job="a", attempt=1, at_ms=given.now_ms + 55_000)
    given.round(checkpoint, after_s=60)
    given.round(report("failed"), after_s=40)
    assert used(given) == {"overhead": 40 + 20, "productive": 200, "lost_failed": 4 * 45}


def test_a_restore_is_overhead_of_the_attempt_that_needs_it() -> None:
    given = running(restore_s=30)
    given.round(c.ReportCheckpoint(job="a", attempt=1, at_ms=given.now_ms), after_s=0)
    given.round(c.ReportCheckpoint(job="a", attempt=1, at_ms=given.now_ms + 1), after_s=60)
    given.round(c.PreemptJob(job="a"), after_s=0)
    given.round(report("stopped"), after_s=1)
    assert used(given)["lost_preempted"] == 4 * 61 - 1
    before = used(given)["overhead"]
    given.round(report("running", attempt=2), after_s=0)
    given.round(report("finished", attempt=2), after_s=100)
    assert used(given)["overhead"] == before + 4 * 30


def test_idle_slots_have_the_state_of_their_node() -> None:
    given = Given()
    given.round(quota(), node("n1"), node("n2"), node("n3"))
    given.round(c.CordonNode(node="n1"), c.ReportNode(node="n2", healthy=False))
    given.round(after_s=10)
    assert used(given, NOBODY) == {"draining": 80, "unhealthy": 80, "free": 80}


def test_what_is_free_is_fragmented_while_someone_waits_for_that_reason() -> None:
    given = Given()
    given.round(quota(16), node("n1"), node("n2"), job("a", slots=5), job("b", slots=5))
    given.round(job("c", slots=6), after_s=10)
    given.round(c.CancelJob(job="c"), after_s=10)
    given.round(after_s=10)
    assert used(given, NOBODY) == {"free": 6 * 20, "fragmented": 6 * 10}


def test_a_reservation_that_is_not_used_is_idle_on_its_accounts_books() -> None:
    given = Given()
    given.round(quota(), node("n1"))
    window = c.RequestReservation(
        reservation="r",
        account="team",
        accelerator="h100",
        count=1,
        slots=8,
        start_ms=given.now_ms + 10_000,
        end_ms=given.now_ms + 100_000,
        queues=("q",),
    )
    given.round(window)
    given.round(job("a", slots=3, reservation="r"), after_s=10)
    given.round(after_s=20)
    assert used(given) == {"reserved_idle": 5 * 20, "overhead": 3 * 20}
    assert used(given, NOBODY) == {"free": 80}


def test_totals_outgrow_64_bits_and_snapshots_keep_them() -> None:
    given = Given()
    nodes = [node(f"n{n}", slots=64) for n in range(2000)]
    given.round(quota(), *nodes)
    given.round(after_s=9 * 365 * DAY_S)
    given.round(node("last"), after_s=1)
    totals = Cell.restore(given.cell.snapshot()).books[(NOBODY, "h100")].totals(given.now_ms)
    assert totals[Use.FREE] == 2000 * 64 * 1000 * (9 * 365 * DAY_S + 1) * 1000 > 1 << 63


def test_a_type_that_has_left_is_settled_no_more_by_a_cell_that_was_not_restored() -> None:
    given = Given()
    given.round(quota(16), node("n1"), node("n2"), node("n3", accelerator="npu"))
    given.round(c.RemoveNode(node="n3"), job("a", slots=5), job("b", slots=5), after_s=10)
    before = given.cell.snapshot()
    either = (specs.Flavour(accelerator="h100"), specs.Flavour(accelerator="npu"))
    round = given.round(job("c", slots=6, flavours=either), after_s=10)
    again = decide(Cell.restore(before), round.header, round.commands)
    assert canonical(again) == canonical(round)
