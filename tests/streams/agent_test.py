"""The reference agent: execution, checkpoints, fencing, leases, faults."""

from __future__ import annotations

from domain.commands import Command, RegisterNode, ReportAttempt, ReportCheckpoint, ReportNode
from domain.specs import FabricPath
from streams.agent import Agent, Work
from streams.dispatch import Group, Instruction, Kill, Start, Stop, decode, encode, standing
from streams.fleet import Fleet
from streams.scenario import Outage

PATH = FabricPath(region="r", cluster="c", block="b", rack="k")


def node(name: str, lease_s: int = 0) -> RegisterNode:
    return RegisterNode(node=name, accelerator="gpu", slots=8, path=PATH, lease_s=lease_s)


def start(
    job: str = "j",
    attempt: int = 1,
    at_s: int = 0,
    nodes: tuple[str, ...] = ("n1",),
    saves: tuple[int, int, int] = (0, 0, 0),
) -> Start:
    """`saves`: interval, write and restore time of checkpoints in seconds."""
    placed = [(name, 1, 0, -1) for name in nodes]
    groups = [Group("main", 8)]
    return Start(job, attempt, "gpu", placed, groups, 1000 * at_s, None, *saves)


def agent_of(*names: str, work_s: int = 100, failures: int = 0, **options: int) -> Agent:
    made = Agent(lambda s: Work(1000 * work_s, failures), **options)
    for name in names:
        made.know_node(node(name), 0)
    return made


def run(agent: Agent, until_s: int) -> list[tuple[int, Command]]:
    """What the agent says, with the second in which it says it."""
    said: list[tuple[int, Command]] = []
    while (due := agent.next_ms()) is not None and due <= 1000 * until_s:
        said += [(due // 1000, command) for command in agent.advance(due)]
    return said


def reports(said: list[tuple[int, Command]]) -> list[tuple[int, str, int]]:
    return [(at, c.state, c.attempt) for at, c in said if isinstance(c, ReportAttempt)]


def test_an_attempt_runs_for_its_work_and_finishes() -> None:
    agent = agent_of("n1")
    agent.handle(start(at_s=5), 5000)
    said = run(agent, 1000)
    assert reports(said) == [(5, "running", 1), (105, "finished", 1)]
    assert all(c.nodes == () for _, c in said if isinstance(c, ReportAttempt))
    assert agent.running == 0


def test_an_attempt_goes_on_from_its_last_checkpoint_after_a_preemption() -> None:
    agent = agent_of("n1", "n2")
    saves = (30, 2, 7)
    agent.handle(start(saves=saves), 0)
    said = run(agent, 70)
    saved = [(at, c.at_ms) for at, c in said if isinstance(c, ReportCheckpoint)]
    assert saved == [(32, 30_000), (64, 62_000)]
    agent.handle(Stop("j", 1, [("n1", 1, 0, -1)], 71_000, "preempted"), 70_000)
    assert reports(run(agent, 80)) == [(71, "stopped", 1)]
    agent.handle(start(attempt=2, at_s=200, nodes=("n2",), saves=saves), 200_000)
    # 60 of 100 s are safe: 7 s restore, 40 s work, one more checkpoint of 2 s on the way
    assert reports(run(agent, 1000)) == [(200, "running", 2), (249, "finished", 2)]


def test_an_attempt_saves_its_work_when_it_is_stopped_with_grace_enough() -> None:
    agent = agent_of("n1")
    saves = (30, 2, 7)
    agent.handle(start(saves=saves), 0)
    run(agent, 70)
    agent.handle(Stop("j", 1, [("n1", 1, 0, -1)], 100_000, "preempted"), 70_000)
    said = run(agent, 80)
    assert [(at, c.at_ms) for at, c in said if isinstance(c, ReportCheckpoint)] == [(73, 70_000)]
    assert reports(said) == [(73, "stopped", 1)]
    agent.handle(start(attempt=2, at_s=200, saves=saves), 200_000)
    # 66 of 100 s are safe, as two checkpoints took 4 s: 7 s restore, 34 s work, one checkpoint
    assert reports(run(agent, 1000)) == [(200, "running", 2), (243, "finished", 2)]


def test_without_checkpoints_a_preemption_loses_everything() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    run(agent, 90)
    agent.handle(Stop("j", 1, [("n1", 1, 0, -1)], 95_000, "preempted"), 90_000)
    run(agent, 95)
    agent.handle(start(attempt=2, at_s=100), 100_000)
    assert reports(run(agent, 1000)) == [(100, "running", 2), (200, "finished", 2)]


def test_a_stop_is_obeyed_within_its_grace_even_if_that_is_short() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    run(agent, 10)
    agent.handle(Stop("j", 1, [("n1", 1, 0, -1)], 10_200, "preempted"), 10_000)
    assert agent.next_ms() == 10_200


def test_instructions_about_an_older_attempt_change_nothing() -> None:
    agent = agent_of("n1")
    agent.handle(start(attempt=3), 0)
    agent.handle(start(attempt=2), 0)
    agent.handle(Stop("j", 2, [("n1", 1, 0, -1)], 1000, "preempted"), 0)
    agent.handle(Kill("j", 2), 0)
    assert reports(run(agent, 1000)) == [(0, "running", 3), (100, "finished", 3)]


def test_a_newer_attempt_on_nodes_of_others_ends_the_older_one_here() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    agent.handle(start(attempt=2, nodes=("n2",)), 1000)
    assert agent.running == 0
    agent.handle(start(), 2000)
    assert agent.running == 0, "it comes again from a dispatcher that slept"
    assert reports(run(agent, 1000)) == []


def test_a_repeated_start_does_not_run_twice_even_after_the_end() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    agent.handle(start(), 10)
    assert len(reports(run(agent, 1000))) == 2
    agent.handle(start(), 2_000_000)
    assert run(agent, 10_000) == []


def test_a_kill_that_overtakes_its_start_keeps_it_from_starting() -> None:
    agent = agent_of("n1")
    agent.handle(Kill("j", 1), 0)
    agent.handle(start(), 0)
    assert agent.running == 0
    agent.handle(start(attempt=2), 0)
    assert agent.running == 1


def test_an_attempt_elsewhere_keeps_an_older_one_from_starting_here() -> None:
    """Seed 1039005: the agent was away when the older one was told and ended."""
    agent = agent_of("n1")
    agent.handle(start(attempt=2, nodes=("n2",)), 0)
    agent.handle(start(attempt=1), 0)
    assert agent.running == 0


def test_a_killed_attempt_says_nothing_more() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    run(agent, 50)
    agent.handle(Kill("j", 1), 50_000)
    assert run(agent, 1000) == []


def test_an_agent_speaks_only_for_its_own_part_of_a_gang() -> None:
    agent = agent_of("n1")
    agent.handle(start(nodes=("n1", "n2")), 0)
    agent.handle(start(job="other", nodes=("n2",)), 0)
    said = run(agent, 1000)
    assert [c.nodes for _, c in said if isinstance(c, ReportAttempt)] == [("n1",), ("n1",)]


def test_the_first_attempts_fail_half_way() -> None:
    agent = agent_of("n1", failures=1)
    agent.handle(start(), 0)
    assert reports(run(agent, 1000)) == [(0, "running", 1), (50, "failed", 1)]
    agent.handle(start(attempt=2, at_s=60), 60_000)
    assert reports(run(agent, 1000)) == [(60, "running", 2), (160, "finished", 2)]


def test_speed_divides_execution_time() -> None:
    agent = agent_of("n1", speed=10)
    agent.handle(start(saves=(50, 10, 0)), 0)
    assert reports(run(agent, 1000))[-1] == (11, "finished", 1)


def test_reports_that_nothing_waits_for_travel_with_others() -> None:
    agent = agent_of("n1", patience_ms=60_000)
    agent.handle(start(), 0)
    assert agent.next_ms() == 60_000
    agent.handle(start(job="k", at_s=20), 20_000)
    assert [c.job for c in agent.advance(20_000) if isinstance(c, ReportAttempt)] == ["j", "k"]


def test_leases_are_renewed_until_the_node_dies() -> None:
    agent = Agent()
    agent.add_node(node("n1", lease_s=90), 0)
    said = run(agent, 65)
    assert isinstance(said[0][1], RegisterNode)
    assert [at for at, c in said if isinstance(c, ReportNode)] == [30, 60]
    agent.drop_node("n1", 0)
    assert run(agent, 1000) == []


def test_a_node_that_comes_back_tells_what_was_cut_off() -> None:
    fleet = Fleet(lambda s: Work(100_000), outages=[Outage(10_000, 50_000, "n1")])
    fleet.add_nodes([node("n1"), node("n2")], 0)
    fleet.advance(0)
    fleet.handle([start(nodes=("n1", "n2")), start(job="k", nodes=("n2",))], 0)
    said: list[tuple[int, Command]] = []
    while (due := fleet.next_ms()) is not None:
        said += [(due // 1000, c) for c in fleet.advance(due)]
    assert [(at, c.job, c.state) for at, c in said if isinstance(c, ReportAttempt)] == [
        (0, "j", "running"),
        (0, "k", "running"),
        (50, "j", "failed"),
        (100, "k", "finished"),
    ]
    assert [(at, c.node) for at, c in said if isinstance(c, RegisterNode)] == [(50, "n1")]


def test_what_a_dead_node_is_told_to_run_fails_when_it_comes_back() -> None:
    fleet = Fleet(lambda s: Work(100_000), outages=[Outage(10_000, 50_000, "n1")])
    fleet.add_nodes([node("n1"), node("n2")], 0)
    fleet.advance(20_000)
    fleet.handle([start(at_s=20), start(job="gang", at_s=20, nodes=("n1", "n2"))], 20_000)
    said = [c for c in fleet.advance(50_000) if isinstance(c, ReportAttempt)]
    assert [(c.job, c.state, c.nodes) for c in said] == [
        ("j", "failed", ("n1",)),
        ("gang", "failed", ("n1",)),
        ("gang", "running", ("n2",)),
    ]


def test_a_node_that_dies_twice_forgets_nothing() -> None:
    agent = agent_of("n1")
    agent.handle(start(), 0)
    assert reports(run(agent, 5)) == [(0, "running", 1)]
    agent.drop_node("n1", 0)
    agent.drop_node("n1", 0)
    agent.add_node(node("n1"), 10_000)
    assert [c.state for c in agent.advance(10_000) if isinstance(c, ReportAttempt)] == ["failed"]


def test_instructions_survive_their_bytes() -> None:
    for told in (
        start(saves=(0, 0, 3)),
        Stop("j", 1, [("n", 1, 0, -1)], 5, "drained"),
        Kill("j", 4),
    ):
        assert decode(encode(told)) == told


def test_what_stands_of_all_that_was_told_are_the_newest_attempts_that_are_not_over() -> None:
    stop = Stop("b", 2, [("n1", 1, 0, -1)], 100_000, "drained")
    told: list[Instruction] = [
        start(job="a"),
        start(job="b"),
        Kill("a", 1),
        Kill("b", 1),
        start(job="b", attempt=2),
        start(job="a"),  # told again, long after its end, by a dispatcher that started anew
        stop,
        Kill("a", 1),
        Kill("b", 1),
    ]
    assert standing(told) == [Kill("a", 1), start(job="b", attempt=2), stop]


def test_a_late_dispatcher_brings_no_attempt_back() -> None:
    told: list[Instruction] = [start(), Kill("j", 1), start()]
    assert standing(told) == [Kill("j", 1)]
    agent = agent_of("n1")
    for instruction in (*standing(told), start()):
        agent.handle(instruction, 0)
    assert agent.running == 0


def part(number: int, at_s: int, node: str = "n1", replicas: int = 1) -> Start:
    """What an elastic attempt of one replica grows by."""
    placed = [(node, replicas, 0, -1)]
    return Start("j", 1, "gpu", placed, [Group("main", 8)], 1000 * at_s, None, 0, 0, 0, number)


def test_an_attempt_that_grew_works_faster_and_slower_again_when_it_shrank() -> None:
    agent = agent_of("n1", "n2")
    agent.handle(start(), 0)
    agent.handle(part(1, 20), 20_000)
    agent.handle(part(1, 20), 21_000)  # told twice
    agent.handle(Stop("j", 1, [("n1", 1, 0, -1)], 60_000, "preempted", 1), 39_000)
    said = [c for c in run(agent, 200) if isinstance(c[1], ReportAttempt)]
    # 20 s alone, 20 s at twice the speed, and the 40 s that are left alone again
    assert [(at, c.state, c.part) for at, c in said if isinstance(c, ReportAttempt)] == [
        (0, "running", 0),
        (40, "stopped", 1),
        (80, "finished", 0),
    ]


def test_a_node_that_dies_takes_only_the_part_that_is_on_it() -> None:
    agent = agent_of("n1", "n2")
    agent.handle(start(), 0)
    agent.handle(part(1, 0, "n2"), 0)
    run(agent, 20)
    agent.drop_node("n2", 20_000)
    agent.add_node(node("n2"), 30_000)
    said = [c for _, c in run(agent, 200) if isinstance(c, ReportAttempt)]
    assert [(c.state, c.part) for c in said] == [("failed", 1), ("finished", 0)]


def test_what_stands_of_an_elastic_attempt() -> None:
    leaves = Stop("j", 1, [("n1", 1, 0, -1)], 60_000, "preempted", 2)
    told: list[Instruction] = [start(), part(1, 5), part(2, 6), part(2, 6)]
    told += [Kill("j", 1, 1), part(1, 5), leaves]
    assert standing(told) == [start(), part(2, 6), Kill("j", 1, 1), leaves]
    assert standing([*told, Kill("j", 1), part(3, 9)]) == [Kill("j", 1)]
