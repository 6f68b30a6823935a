"""Traces of real clusters, read into scenarios.

Three formats of CSV files with a header line; times are seconds unless said:
  jobs   job, submit_s, gpus, duration_s, partition
  slo    job_id, user (the partition), num_gpu, submit_time, duration and expect_time_list (the
         deadline after submission), all three in minutes, best_effort, job_type
  openb  name, cpu_milli, memory_mib, num_gpu, gpu_milli, and, in the complete files, gpu_spec, qos,
         creation_time, deletion_time, scheduled_time; nodes: sn, cpu_milli, memory_mib, gpu, model
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from domain.commands import RegisterNode, SetQuota
from domain.specs import FabricPath, Queue, Quota
from streams.agent import Work
from streams.scenario import EPOCH_MS, Arrival, Body, Scenario, checked_shape, in_order, submission

GPU: Final = "gpu"
"""Accelerator type of traces that name none."""
HOST: Final = "cpu"
"""Type of a node without accelerators."""
MODEL: Final = "model"
"""Label of a node that names the model of its accelerators."""
REGION: Final = "region"
POOL: Final = "pool"
"""The account above all partitions' accounts when they form one pool."""

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_QOS: Final = {
    "Guaranteed": "reserved",
    "LS": "premium",
    "Burstable": "standard",
    "BE": "basic",
}
_SLO: Final = {"strict": "premium", "soft": "standard", "best": "basic"}


class BadTrace(Exception):
    """A trace cannot be read: file, line, column and rule are in the message."""


class Row(Struct, frozen=True, gc=False):
    """One job of any trace."""

    job: str
    submit_s: int
    duration_s: int | None
    """None: it never ends."""
    gpus: int
    partition: str
    tier: str = "standard"
    share_milli: int = 1000
    cpu_milli: int = 0
    memory_mib: int = 0
    models: tuple[str, ...] = ()
    """Values of the node label `model` that it accepts; empty: any."""
    deadline_s: int | None = None
    """On the same clock as `submit_s`."""


class Options(Struct, frozen=True):
    """How the jobs of a trace are run."""

    apart: bool = False
    """Each partition's jobs stay on its own nodes; else all nodes form one pool."""
    preemptible: bool = False
    checkpoint_s: int = 0
    restarts: int = 0
    estimates: bool = False
    """Jobs say how long they will run, and are right."""


# --- reading --------------------------------------------------------------------------------------


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """(line, record) of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            for record in reader:
                if None in record or None in record.values():
                    raise BadTrace(f"{path.name}:{reader.line_num}: not as many fields as columns")
                yield reader.line_num, record
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path.name}: {error}") from error


def _read(path: Path, read: Callable[[int, Mapping[str, str]], T]) -> list[T]:
    """What `read` makes of each line of the file."""
    made: list[T] = []
    line = 1
    try:
        for line, record in _records(path):
            made.append(read(line, record))
    except KeyError as error:
        raise BadTrace(f"{path.name}: column {error.args[0]!r} is missing") from error
    except ValueError as error:
        raise BadTrace(f"{path.name}:{line}: {error}") from error
    if not made:
        raise BadTrace(f"{path.name}: it holds nothing but its header")
    return made


def _number(record: Mapping[str, str], column: str) -> int:
    value = int(float(record[column]))
    if value < 0:
        raise ValueError(f"{column}: must not be negative, is {value}")
    return value


def _name(record: Mapping[str, str], column: str) -> str:
    value = record[column]
    if not _NAME.fullmatch(value):
        raise ValueError(f"{column}: {value!r} is not a name (letters, digits, dot, dash, _)")
    return value


def _job_row(line: int, record: Mapping[str, str]) -> Row:
    return Row(
        _name(record, "job"),
        _number(record, "submit_s"),
        _number(record, "duration_s"),
        _number(record, "gpus"),
        _name(record, "partition"),
    )


def _slo_row(line: int, record: Mapping[str, str]) -> Row:
    kind = record["job_type"]
    if kind not in _SLO:
        raise ValueError(f"job_type: {kind!r} is none of {', '.join(_SLO)}")
    best_effort = record["best_effort"] == "1"
    submit_s = 60 * _number(record, "submit_time")
    return Row(
        f"slo-{_name(record, 'job_id')}",
        submit_s,
        60 * _number(record, "duration"),
        _number(record, "num_gpu"),
        _name(record, "user"),
        _SLO["best" if best_effort else kind],
        deadline_s=None if best_effort else submit_s + 60 * _number(record, "expect_time_list"),
    )


def _tier(record: Mapping[str, str]) -> str:
    if record["qos"] not in _QOS:
        raise ValueError(f"qos: {record['qos']!r} is none of {', '.join(_QOS)}")
    return _QOS[record["qos"]]


def _openb_row(line: int, record: Mapping[str, str]) -> Row:
    timed = "creation_time" in record
    begin = submit = _number(record, "creation_time") if timed else line - 2
    if timed and record["scheduled_time"]:
        begin = _number(record, "scheduled_time")
    gpus = _number(record, "num_gpu")
    return Row(
        _name(record, "name"),
        submit,
        max(0, _number(record, "deletion_time") - begin) if timed else None,
        gpus,
        "openb",
        _tier(record) if timed else "standard",
        _number(record, "gpu_milli") if gpus == 1 else 1000,
        _number(record, "cpu_milli"),
        _number(record, "memory_mib"),
        tuple(filter(None, record.get("gpu_spec", "").split("|"))),
    )


FORMATS: Final[dict[str, Callable[[int, Mapping[str, str]], Row]]] = {
    "jobs": _job_row,
    "openb": _openb_row,
    "slo": _slo_row,
}


def read(path: Path, format: str) -> list[Row]:
    """The jobs of a file in order of submission. Raises BadTrace."""
    return sorted(_read(path, FORMATS[format]), key=lambda r: r.submit_s)


def partition_nodes(sizes: Mapping[str, int], gpus_per_node: int) -> list[RegisterNode]:
    """Nodes of one type; each partition is a cluster of one rack, as the traces tell no more."""
    return [
        RegisterNode(
            node=f"{partition}-{i:04}",
            accelerator=GPU,
            slots=gpus_per_node,
            path=FabricPath(region=REGION, cluster=partition, block="block", rack="rack"),
        )
        for partition, count in sizes.items()
        for i in range(count)
    ]


def _listed_node(line: int, record: Mapping[str, str]) -> RegisterNode:
    gpus = _number(record, "gpu")
    return RegisterNode(
        node=_name(record, "sn"),
        accelerator=GPU if gpus else HOST,
        kind="gpu" if gpus else "cpu",
        slots=gpus,
        host_cpu_milli=_number(record, "cpu_milli"),
        host_memory_mib=_number(record, "memory_mib"),
        path=FabricPath(region=REGION, cluster="openb", block="block", rack="rack"),
        labels={MODEL: _name(record, "model")} if gpus else {},
    )


def listed_nodes(path: Path) -> list[RegisterNode]:
    """Nodes of an openb node list. Raises BadTrace."""
    return _read(path, _listed_node)


# --- rows to commands -----------------------------------------------------------------------------


def _groups(row: Row, gpus_per_node: int) -> list[Body]:
    """The gang on as few nodes as it fills: full nodes, and one more for the rest."""
    host: Body = {}
    if row.cpu_milli:
        host["host_cpu_milli"] = row.cpu_milli
    if row.memory_mib:
        host["host_memory_mib"] = row.memory_mib
    if row.share_milli < 1000:
        host["share_milli"] = row.share_milli
    if row.gpus <= gpus_per_node:
        return [{"slots": row.gpus, **host}]
    full, rest = divmod(row.gpus, gpus_per_node)
    groups: list[Body] = [{"count": full, "slots": gpus_per_node, **host}]
    if rest:
        groups.append({"name": "rest", "slots": rest, **host})
    return groups


def _types(nodes: list[RegisterNode]) -> list[str]:
    """Accelerator types, the most plentiful first; hosts without accelerators come first of all."""
    slots: Counter[str] = Counter()
    for node in nodes:
        slots[node.accelerator] += node.slots
    return sorted(slots, key=lambda t: (slots[t] > 0, -slots[t], t))


def shape_of(row: Row, types: list[str], gpus_per_node: int, options: Options) -> Body:
    """A SubmitJob body without its job; `types` are those of the nodes, in order of preference."""
    wanted = tuple(t for t in types if t != HOST or not row.gpus)
    shape: Body = {
        "queue": row.partition,
        "tier": row.tier,
        "groups": _groups(row, gpus_per_node),
        "flavours": [{"accelerator": t} for t in wanted[:8]],
        "preemptible": options.preemptible,
        "max_restarts": options.restarts,
    }
    if options.checkpoint_s:
        shape["runtime"] = {"checkpoint_interval_s": options.checkpoint_s}
    require = [{"label": "cluster", "values": [row.partition]}] if options.apart else []
    if row.models:
        require.append({"label": MODEL, "values": list(row.models)})
    if require:
        shape["placement"] = {"require": require}
    return shape


def _quotas(nodes: list[RegisterNode], apart: bool) -> list[SetQuota]:
    """Each partition's share is what its nodes have; in one pool it may borrow all the rest."""
    slots: dict[str, Counter[str]] = {}
    for node in nodes:
        slots.setdefault(node.path.cluster, Counter())[node.accelerator] += node.slots
    accounts = [] if apart else [SetQuota(account=POOL)]
    for partition, by_type in sorted(slots.items()):
        quotas = tuple(
            Quota(accelerator=t, nominal=n, borrowing_limit=0 if apart else None)
            for t, n in sorted(by_type.items())
        )
        queues = (Queue(queue=partition),)
        parent = None if apart else POOL
        accounts.append(SetQuota(account=partition, parent=parent, quotas=quotas, queues=queues))
    return accounts


def scenario(
    rows: list[Row],
    nodes: list[RegisterNode],
    options: Options | None = None,
    origin_ms: int = EPOCH_MS,
) -> Scenario:
    """The rows as submissions to these nodes; time starts with the first of them, at `origin_ms`.

    A partition without nodes has no account: its jobs are submitted and refused. Raises BadTrace
    if two jobs have one name.
    """
    options = options or Options()
    if len({r.job for r in rows}) != len(rows):
        twice = Counter(r.job for r in rows).most_common(1)[0][0]
        raise BadTrace(f"two jobs are named {twice!r}")
    gpus_per_node = max((n.slots for n in nodes), default=1) or 1
    types = _types(nodes)
    shapes: dict[tuple[object, ...], Body] = {}
    arrivals: list[Arrival] = []
    work: dict[str, Work] = {}
    first_s = min(r.submit_s for r in rows)
    for row in rows:
        key = (row.gpus, row.partition, row.tier, row.share_milli, row.cpu_milli, row.memory_mib)
        shape = shapes.get((*key, row.models))
        if shape is None:
            shape = checked_shape(shape_of(row, types, gpus_per_node, options))
            shapes[(*key, row.models)] = shape
        due_ms = None
        if row.deadline_s is not None:
            due_ms = origin_ms + 1000 * (row.deadline_s - first_s)
        estimate_s = row.duration_s if options.estimates else None
        at_ms = 1000 * (row.submit_s - first_s)
        arrivals.append(submission(at_ms, shape, row.job, estimate_s, due_ms))
        work[row.job] = Work(None if row.duration_s is None else 1000 * row.duration_s)
    return Scenario(nodes, _quotas(nodes, options.apart), in_order(arrivals), work)
