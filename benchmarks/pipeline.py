"""Commands per second and latency through real Kafka, beside a bare consume-transform-produce loop.

Both get the same messages, first at a steady rate (latency from the producer's send to the record
in the output topic), then as a backlog that piled up while they were paused (throughput). Every
command admits a job and starts it at once, so each one costs placement, reasons and two facts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition

from benchmarks.pipeline_parts import parts
from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.ledger import unseal
from domain.ports import Message
from domain.specs import FabricPath, Flavour, Queue, Quota, ReplicaGroup, Runtime
from infra.kafka import LocalKafka
from infra.process import Process
from streams.envelope import structured
from streams.kafka import KafkaCommandSink
from streams.kafka_clients import Connected, make_consumer, make_producer, send_all
from streams.topics import create_topics, topic

SLOTS: Final = 8
WARM_UP_S: Final = 3
BARE: Final = "bare"


def capacity(jobs: int) -> list[Command]:
    """Room for so many jobs of one slot."""
    nodes = -(-jobs // SLOTS)
    all_ = (Quota(accelerator="h100", nominal=nodes * SLOTS),)
    queues = tuple(Queue(queue=f"q{i}") for i in range(20))
    return [
        SetQuota(account="company", quotas=all_, queues=queues),
        *(
            RegisterNode(
                node=f"n{i}",
                accelerator="h100",
                slots=SLOTS,
                path=FabricPath(region="r", cluster="c", block=f"b{i // 64}", rack=f"k{i // 8}"),
            )
            for i in range(nodes)
        ),
    ]


def submission(number: int) -> Message:
    """Some 600 bytes with its headers and attributes."""
    job = SubmitJob(
        job=f"job-{number:07}",
        queue=f"q{number % 20}",
        groups=(ReplicaGroup(count=1, slots=1),),
        flavours=(Flavour(accelerator="h100"),),
        runtime=Runtime(estimate_s=600 * (1 + number % 20), checkpoint_interval_s=600),
        labels={"team": f"team-{number % 20}", "purpose": "a label as people write them " * 3},
    )
    now_ms = time.time_ns() // 1_000_000
    return structured(job, source=f"urn:producer:{number % 64}", id=str(number), time_ms=now_ms)


# --- the two that are measured --------------------------------------------------------------------


def start_bare(bootstrap: str, folder: Path) -> list[Process]:
    return [_child(folder, "bare", bootstrap)]


def start_workers(bootstrap: str, folder: Path, cell: str, workers: Sequence[str]) -> list[Process]:
    return [_child(folder, roles, bootstrap, cell, str(folder)) for roles in workers]


def _child(folder: Path, *arguments: str) -> Process:
    command = [sys.executable, "-m", "benchmarks.pipeline_parts", *arguments]
    return Process(command, folder / f"{arguments[0].replace(',', '-')}.log")


# --- the measuring --------------------------------------------------------------------------------


class Output:
    """Watches what comes out: how many commands, and when each did."""

    def __init__(self, bootstrap: str, name: str, ledger: bool) -> None:
        self._partition = TopicPartition(name, 0)
        self._ledger = ledger
        self._consumer = make_consumer(bootstrap)
        self._more = asyncio.Event()
        self.seen = 0
        self.at: dict[str, float] = {}
        """When a command was seen, by its id."""
        self.records: list[int] = []
        """Bytes of each record."""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        async with Connected(self._consumer):
            self._consumer.assign([self._partition])
            self._consumer.seek(self._partition, 0)
            task = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                task.cancel()

    async def _watch(self) -> None:
        while True:
            taken = await self._consumer.getmany(timeout_ms=1000)
            now = time.perf_counter()
            for record in taken.get(self._partition, ()):
                self.records.append(len(record.value))
                for id_ in self._ids(record.value, record.key):
                    self.at[id_] = now
                    self.seen += 1
            self._more.set()

    def _ids(self, value: bytes, key: bytes) -> Iterable[str]:
        if not self._ledger:
            return (key.decode(),)
        return (command.id for command in unseal(value, None)[0].commands)

    async def until(self, amount: int, within_s: float = 120) -> None:
        async with asyncio.timeout(within_s):
            while self.seen < amount:
                self._more.clear()
                await self._more.wait()


async def latency(
    producer: AIOKafkaProducer, name: str, output: Output, rate: int, seconds: int, first: int
) -> dict[str, float]:
    """Offer `rate` commands a second. Milliseconds from send to sight, after the warm-up."""
    amount = rate * (seconds + WARM_UP_S)
    sent: dict[str, float] = {}
    sends = []
    begin = time.perf_counter()
    for number in range(amount):
        due = begin + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        message = submission(first + number)
        sent[str(first + number)] = time.perf_counter()
        sends.append(await producer.send(name, message.value, **_rest(message, first + number)))
    await asyncio.gather(*sends)
    took = time.perf_counter() - begin
    await output.until(first + amount)
    measured = list(sent)[rate * WARM_UP_S :]
    delays = sorted(1000 * (output.at[id_] - sent[id_]) for id_ in measured)
    return {
        "offered_per_s": round(amount / took),
        "p50_ms": round(delays[len(delays) // 2], 1),
        "p99_ms": round(delays[len(delays) * 99 // 100], 1),
        "max_ms": round(delays[-1], 1),
    }


def _rest(message: Message, number: int) -> dict[str, Any]:
    return {"key": str(number).encode(), "headers": list(message.headers)}


async def throughput(
    producer: AIOKafkaProducer,
    name: str,
    output: Output,
    children: Sequence[Process],
    amount: int,
    first: int,
) -> dict[str, Any]:
    """Pause, pile up a backlog, resume: commands a second until the last one is out."""
    for child in children:
        child.pause()
    messages = [submission(first + n) for n in range(amount)]
    records = [(str(first + n).encode(), m.value, m.headers) for n, m in enumerate(messages)]
    await send_all(producer, name, records)
    spent = [_cpu_s(child) for child in children]
    for child in children:
        child.resume()
    begin = time.perf_counter()
    await output.until(first + amount)
    seconds = time.perf_counter() - begin
    cpu_us = [1e6 * (_cpu_s(c) - s) / amount for c, s in zip(children, spent, strict=True)]
    return {
        "commands": amount,
        "seconds": round(seconds, 2),
        "per_s": round(amount / seconds),
        "cpu_us_per_command": [round(us) for us in cpu_us],
    }


def _cpu_s(child: Process) -> float:
    """Seconds of user and system time that the process has used."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_bare(bootstrap: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    await create_topics(bootstrap, BARE)
    output = Output(bootstrap, topic("accepted", BARE), ledger=False)
    children = start_bare(bootstrap, folder)
    producer = make_producer(bootstrap)
    name = topic("cmd", BARE)
    try:
        async with Connected(producer), output.watching():
            steady = await latency(producer, name, output, args.rate, args.seconds, 0)
            done = args.rate * (args.seconds + WARM_UP_S)
            drained = await throughput(producer, name, output, children, args.backlog, done)
    finally:
        _stop(children)
    return {"latency": steady, "throughput": drained}


async def measure_pipeline(
    bootstrap: str, args: argparse.Namespace, folder: Path, cell: str, workers: Sequence[str]
) -> dict[str, Any]:
    folder = folder / cell
    folder.mkdir()
    await create_topics(bootstrap, cell)
    offered = args.rate * (args.seconds + WARM_UP_S)
    ready = capacity(offered + args.backlog)
    output = Output(bootstrap, topic("ledger", cell), ledger=True)
    children = start_workers(bootstrap, folder, cell, workers)
    producer = make_producer(bootstrap)
    try:
        async with (
            Connected(producer),
            KafkaCommandSink(bootstrap, cell) as sink,
            output.watching(),
        ):
            now_ms = time.time_ns() // 1_000_000
            for n, command in enumerate(ready):  # one source: they keep their order
                await sink.send(structured(command, source="set-up", id=f"c{n}", time_ms=now_ms))
            await output.until(len(ready))
            output.seen, output.at = 0, {}
            output.records.clear()
            steady = await latency(producer, topic("cmd", cell), output, args.rate, args.seconds, 0)
            sizes = {"steady": _mean(output.records)}
            output.records.clear()
            drained = await throughput(
                producer, topic("cmd", cell), output, children, args.backlog, offered
            )
            sizes["backlog"] = _mean(output.records)
    finally:
        _stop(children)
    return {"latency": steady, "throughput": drained, "record_bytes_mean": sizes}


def _mean(values: Sequence[int]) -> int:
    return sum(values) // max(1, len(values))


def _stop(children: Sequence[Process]) -> None:
    for child in children:
        child.stop()


def run(args: argparse.Namespace) -> dict[str, Any]:
    gc.disable()  # a pause of the one who measures would be taken for one of the measured
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka = stack.enter_context(LocalKafka(folder / "kafka"))
        bare = asyncio.run(measure_bare(kafka.bootstrap, args, folder))
        shapes = {
            "one_worker": ["intake,decider"],
            "two_workers": ["intake", "decider"],
            "three_workers": ["intake", "intake", "decider"],
        }
        result: dict[str, Any] = {"bare_loop": bare}
        for cell, workers in shapes.items():
            result[cell] = asyncio.run(
                measure_pipeline(kafka.bootstrap, args, folder, cell, workers)
            )
            ceiling = bare["throughput"]["per_s"]
            result[cell]["of_ceiling"] = round(result[cell]["throughput"]["per_s"] / ceiling, 2)
        result["us_per_command"] = parts([submission(n) for n in range(args.parts)], capacity)
        result["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return result


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks pipeline", description=__doc__)
    parser.add_argument("--rate", type=int, default=1500, help="commands a second for the latency")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--backlog", type=int, default=20_000)
    parser.add_argument("--parts", type=int, default=5000, help="commands for the split of time")
    return run(parser.parse_args(argv))
