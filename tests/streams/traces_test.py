"""Traces: what is read from a file, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import traces
from streams.agent import Work
from streams.traces import BadTrace, Options, Row

JOBS = "job,submit_s,gpus,duration_s,partition\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_jobs_are_read_in_order_of_submission(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", JOBS + "b,20,4,100,left\na,10,1,50,right\n")
    assert traces.read(path, "jobs") == [
        Row("a", 10, 50, 1, "right"),
        Row("b", 20, 100, 4, "left"),
    ]


def test_slo_times_are_minutes_and_classes_are_tiers(tmp_path: Path) -> None:
    head = (
        "job_id,user,num_gpu,submit_time,iterations,model_name,duration,interval,"
        "expect_time_list,expect_value_list,best_effort,job_type\n"
    )
    path = write(
        tmp_path / "t.csv",
        head
        + "7,vc,2,3,9,m,5,1,8,10,0,strict\n"
        + "8,vc,2,4,9,m,5,1,8,10,0,soft\n"
        + "9,vc,2,5,9,m,5,1,,,1,best\n",
    )
    rows = traces.read(path, "slo")
    assert rows[0] == Row("slo-7", 180, 300, 2, "vc", "premium", deadline_s=180 + 480)
    assert rows[2].deadline_s is None
    assert [r.tier for r in rows] == ["premium", "standard", "basic"]


def test_openb_tasks_keep_share_host_parts_models_and_class(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
        "creation_time,deletion_time,scheduled_time\n"
        "p0,6000,128,1,460,T4|P100,BE,Running,10,110,40\n"
        "p1,6000,128,0,0,,LS,Pending,20,70,\n",
    )
    shared, plain = traces.read(path, "openb")
    assert shared == Row("p0", 10, 70, 1, "openb", "basic", 460, 6000, 128, ("T4", "P100"))
    assert (plain.duration_s, plain.gpus, plain.tier) == (50, 0, "premium")


def test_openb_tasks_without_times_come_one_a_second_and_stay(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np0,1,1,1,1000\np1,1,1,2,1000\n",
    )
    rows = traces.read(path, "openb")
    assert [(r.submit_s, r.duration_s) for r in rows] == [(0, None), (1, None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job,submit_s,gpus,duration_s\na,1,1,1\n", "column 'partition' is missing"),
        (JOBS + "a,1,1,soon,p\n", "t.csv:2: .*soon"),
        (JOBS + "a,-1,1,5,p\n", "t.csv:2: submit_s: must not be negative"),
        (JOBS + "a b,1,1,5,p\n", "t.csv:2: job: 'a b' is not a name"),
        (JOBS + "a,1,1\n", "t.csv:2: not as many fields as columns"),
        (JOBS, "nothing but its header"),
    ],
)
def test_a_bad_file_is_refused_with_place_and_rule(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadTrace, match=message):
        traces.read(write(tmp_path / "t.csv", text), "jobs")


def test_a_file_that_is_not_there_is_a_bad_trace(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"none\.csv"):
        traces.read(tmp_path / "none.csv", "jobs")


def test_a_gang_takes_as_few_nodes_as_it_fills() -> None:
    nodes = traces.partition_nodes({"p": 3}, 8)
    rows = [Row("small", 0, 1, 4, "p"), Row("full", 0, 1, 16, "p"), Row("rest", 0, 1, 20, "p")]
    groups = [a.body["groups"] for a in traces.scenario(rows, nodes).arrivals]
    assert groups == [
        [{"slots": 4}],
        [{"count": 2, "slots": 8}],
        [{"count": 2, "slots": 8}, {"name": "rest", "slots": 4}],
    ]


def test_apart_ties_jobs_to_the_nodes_of_their_partition() -> None:
    nodes = traces.partition_nodes({"p": 1, "q": 2}, 8)
    rows = [Row("j", 100, 60, 1, "p")]
    made = traces.scenario(rows, nodes, Options(apart=True))
    assert made.arrivals[0].at_ms == 0
    assert made.arrivals[0].body["placement"]["require"] == [{"label": "cluster", "values": ["p"]}]
    assert {n.path.cluster for n in made.nodes} == {"p", "q"}
    assert all(q.parent is None for q in made.quotas)
    assert made.work == {"j": Work(60_000)}


def test_pooled_partitions_are_accounts_with_their_share_under_one_root() -> None:
    nodes = traces.partition_nodes({"p": 1, "q": 2}, 8)
    made = traces.scenario([Row("j", 0, 60, 1, "p")], nodes)
    assert "placement" not in made.arrivals[0].body
    root, *accounts = made.quotas
    assert root.parent is None
    nominal = {a.account: a.quotas[0].nominal for a in accounts}
    assert nominal == {"p": 8, "q": 16}
    assert all(a.parent == root.account for a in accounts)
    assert all(a.quotas[0].borrowing_limit is None for a in accounts)


def test_two_jobs_of_one_name_are_refused() -> None:
    rows = [Row("j", 0, 60, 1, "p"), Row("j", 1, 60, 1, "p")]
    with pytest.raises(BadTrace, match="two jobs are named 'j'"):
        traces.scenario(rows, traces.partition_nodes({"p": 1}, 8))


def test_listed_nodes_have_the_type_of_their_model_or_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.csv", "sn,cpu_milli,memory_mib,gpu,model\na,1000,10,0,\nb,2000,20,4,V100M16\n"
    )
    host, gpus = traces.listed_nodes(path)
    assert (host.accelerator, host.kind, host.slots) == (traces.HOST, "cpu", 0)
    assert (gpus.accelerator, gpus.slots, gpus.host_cpu_milli) == (traces.GPU, 4, 2000)
    assert (host.labels, gpus.labels) == ({}, {"model": "V100M16"})
