"""`ottla bench`: the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.bench import cold, raw, report, runner, transactions, workers
from ottla.cli.bench.options import (
    Api,
    Beside,
    BrokerPid,
    Linger,
    Messages,
    Partitions,
    Processes,
    Seconds,
    Size,
    Topic,
    Warmup,
)
from ottla.cli.bench.workers import Done, Load
from ottla.cli.client import Cluster, connect
from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError
from ottla.cli.examples import examples
from ottla.cli.options import (
    BOOTSTRAP_DEFAULT,
    Acks,
    AcksOption,
    Bootstrap,
    Compression,
    CompressionOption,
    Json,
    Properties,
    decimal_number,
    whole_number,
)
from ottla.types import TopicPartition

app = typer.Typer(
    no_args_is_help=True, help="Put load on any Kafka-compatible broker, and see what it costs."
)

# Messages a second whose latency is measured.
RATE_DEFAULT = 1000
# What is measured beside large batches, and those: three connections that each write one after the other.
NEIGHBOUR_CONNECTIONS, BESIDE_CONNECTIONS = 2, 3
BESIDE_RECORDS, BESIDE_RECORD_BYTES = 1000, 1000


@app.command()
@examples(
    ("ottla bench produce --messages 2000000 --compression lz4", "Send two million compressed messages."),
    (
        "ottla bench produce --topic orders --messages 1000 --acks all",
        "Send to a topic that exists, and wait for all replicas in sync.",
    ),
)
def produce(
    topic: Topic = None,
    partitions: Partitions = 6,
    messages: Messages = 1_000_000,
    size: Size = 100,
    acks: AcksOption = Acks.LEADER,
    compression: CompressionOption = Compression.NONE,
    linger_ms: Linger = 5.0,
    processes: Processes = 1,
    broker_pid: BrokerPid = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Send messages in batches, as fast as they go, through librdkafka."""
    settings = {"acks": acks.value, "compression.type": compression.value, "linger.ms": linger_ms}
    cluster = connect(bootstrap, property)
    brokers = runner.broker_processes(cluster, broker_pid)
    with runner.topic(cluster, topic, partitions) as name:
        measured = _produce(cluster, brokers, name, messages, size, settings, processes, property)
        asked = {
            "partitions": len(cluster.topic(name).partitions),
            "size_bytes": size,
            "acks": acks.value,
            "compression": compression.value,
            "linger_ms": linger_ms,
        }
    report.show(_result("produce", asked, measured, "messages", _librdkafka(processes)), json)
    _check(measured.done)


@app.command()
@examples(
    ("ottla bench consume", "Read a million messages."),
    ("ottla bench consume --messages 1000 --partitions 1", "Read a thousand messages from one partition."),
)
def consume(
    topic: Topic = None,
    partitions: Partitions = 6,
    messages: Messages = 1_000_000,
    size: Size = 100,
    compression: CompressionOption = Compression.NONE,
    processes: Processes = 1,
    broker_pid: BrokerPid = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Read messages from the beginning, as fast as they come, through librdkafka.

    A new topic is filled first, unmeasured.
    """
    cluster = connect(bootstrap, property)
    brokers = runner.broker_processes(cluster, broker_pid)
    with runner.topic(cluster, topic, partitions) as name:
        if topic is None:
            filling = {"acks": "1", "compression.type": compression.value, "linger.ms": 5}
            _check(_produce(cluster, brokers, name, messages, size, filling, 1, property).done)
        measured = _consume(cluster, brokers, name, messages, processes, property, filled=topic is None)
        asked: dict[str, Any] = {"partitions": len(cluster.topic(name).partitions)}
        if topic is None:
            asked |= {"size_bytes": size, "compression": compression.value}
    report.show(_result("consume", asked, measured, "messages", _librdkafka(processes)), json)
    _check(measured.done)


@app.command()
@examples(
    (
        "ottla bench latency",
        "Send 1000 messages a second for ten seconds, and show how long they take to a consumer.",
    ),
    ("ottla bench latency --rate 100 --seconds 0.2 --warmup-s 0.1", "Measure for a short time."),
)
def latency(
    topic: Topic = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            "-r",
            metavar="N",
            parser=decimal_number(0.1),
            help=f"Messages a second, {RATE_DEFAULT} where it is not said.",
        ),
    ] = None,
    seconds: Seconds = 10.0,
    warmup_s: Warmup = 2.0,
    size: Size = 100,
    acks: AcksOption = Acks.LEADER,
    beside: Annotated[
        Beside | None,
        typer.Option(
            help="Time Produce requests of one message instead, one after the other on each of two raw "
            "connections, while three others write batches of 1 MB, several GB in all (produce), or one "
            "reads 128 MB again and again that are not in memory (cold-reader; a broker on this machine)."
        ),
    ] = None,
    broker_pid: BrokerPid = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Time messages from the producer to a consumer at a fixed rate, one partition, no lingering."""
    if beside is not None:
        if rate is not None:
            output.fail_usage("--rate: with --beside each request follows the answer to the one before")
        _check_answers(acks)
        cluster = connect(bootstrap, property)
        brokers = runner.broker_processes(cluster, broker_pid)
        _time_beside(cluster, brokers, beside, topic, size, acks, seconds, warmup_s, json)
        return
    rate = RATE_DEFAULT if rate is None else rate
    cluster = connect(bootstrap, property)
    brokers = runner.broker_processes(cluster, broker_pid)
    with runner.topic(cluster, topic, 1) as name:
        settings = _settings(cluster, property)
        load = Load(
            settings | {"acks": acks.value},
            name,
            max(1, round(rate * seconds)),
            size=max(size, workers.STAMP.size),
            rate_per_s=rate,
            warmup_count=round(rate * warmup_s),
        )
        receiving = replace(load, settings=settings)
        jobs: list[tuple[runner.Worker, Any]] = [(workers.receive, receiving), (workers.pace, load)]
        measured = runner.run("Latency", jobs, brokers, load.count, warmup_s=warmup_s)
    asked = {"rate_per_s": rate, "size_bytes": load.size, "acks": acks.value}
    received = measured._replace(done=measured.done[:1])
    result = _result("latency", asked, received, "messages", _librdkafka(2))
    report.show(replace(result, client_cpu_s=sum(d.cpu_s for d in measured.done)), json)
    _check(measured.done)


@app.command()
@examples(
    (
        "ottla bench requests --connections 8 --in-flight 4",
        "Send Produce requests over eight connections, four at a time on each.",
    ),
    (
        "ottla bench requests --api metadata --seconds 0.2 --warmup-s 0.1",
        "Send Metadata requests for a short time.",
    ),
)
def requests(
    topic: Topic = None,
    api: Annotated[Api, typer.Option(help="What to ask.")] = Api.PRODUCE,
    partitions: Partitions = 6,
    connections: Annotated[
        int,
        typer.Option("--connections", "-c", metavar="N", parser=whole_number(1, 10_000), help="Connections."),
    ] = 1,
    in_flight: Annotated[
        int,
        typer.Option(
            "--in-flight",
            "-i",
            metavar="N",
            parser=whole_number(1, 1000),
            help="Unanswered requests on each connection.",
        ),
    ] = 1,
    records: Annotated[
        int,
        typer.Option(
            "--records", "-k", metavar="N", parser=whole_number(1), help="Records in each Produce request."
        ),
    ] = 1,
    size: Size = 100,
    acks: AcksOption = Acks.LEADER,
    seconds: Seconds = 10.0,
    warmup_s: Warmup = 2.0,
    processes: Processes = 1,
    broker_pid: BrokerPid = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Send requests that were built once over raw sockets: the client costs little, the broker's limit shows.

    Plain connections only.
    """
    _check_answers(acks)
    processes = min(processes, connections)
    cluster = connect(bootstrap, property)
    brokers = runner.broker_processes(cluster, broker_pid)
    with runner.topic(cluster, topic, partitions) as name:
        targets = _targets(cluster, name, api, records, size, -1 if acks is Acks.ALL else 1)
        chosen = [targets[i % len(targets)] for i in range(connections)]
        position = raw.produce_error_position(name) if api is Api.PRODUCE else -1
        jobs: list[tuple[runner.Worker, Any]] = [
            (raw.run, raw.RawLoad(tuple(chosen[i::processes]), in_flight, seconds, warmup_s, position))
            for i in range(processes)
        ]
        measured = runner.run("Requests", jobs, brokers, 0)
    asked = {"api": api.value, "connections": connections, "in_flight": in_flight}
    if api is Api.PRODUCE:
        asked |= {"records": records, "size_bytes": size, "acks": acks.value}
    client = f"requests built once, over raw sockets (epoll), {_processes(processes)}"
    report.show(_result("requests", asked, measured, "requests", client), json)
    _check(measured.done)


@app.command("transactions")
@examples(
    ("ottla bench transactions", "Compare transactions with plain messages."),
    (
        "ottla bench transactions --only batches --rounds 1 --messages 1000 --seconds 0.1",
        "Compare large transactions only, for a short time.",
    ),
)
def measure_transactions(
    only: Annotated[
        list[transactions.Row] | None,
        typer.Option(
            help="Measure this alone: transactions of many messages (batches), of one each (single), what "
            "reading committed messages costs (consume), or consume-transform-produce (process). Repeatable."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", parser=whole_number(1), help="How often each is done, in turn.")
    ] = 3,
    partitions: Partitions = 6,
    replicas: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole_number(1),
            show_default=False,
            help="Replicas of the new topics, else as many as the broker gives them.",
        ),
    ] = -1,
    messages: Messages = 300_000,
    size: Size = 100,
    piece: Annotated[
        int, typer.Option(metavar="N", parser=whole_number(1, 8192), help="Messages of a large transaction.")
    ] = 1000,
    seconds: Seconds = 3.0,
    broker_pid: BrokerPid = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Do the same in transactions and without, in turn, and see what exactly-once costs.

    Single messages go over raw sockets, so over plain connections only; all else through librdkafka.
    """
    cluster = connect(bootstrap, property)
    brokers = runner.broker_processes(cluster, broker_pid)
    asked = transactions.Asked(
        cluster,
        brokers,
        _settings(cluster, property),
        rounds,
        partitions,
        replicas,
        messages,
        size,
        piece,
        seconds,
    )
    found = transactions.measure(asked, only or list(transactions.Row))
    transactions.show(asked, f"raw sockets (single); {_librdkafka(1)}", found, json)


def _time_beside(
    cluster: Cluster,
    brokers: frozenset[int],
    what: Beside,
    topic: str | None,
    size: int,
    acks: Acks,
    seconds: float,
    warmup_s: float,
    json: bool,
) -> None:
    """Small Produce requests, and what another process does, each connection with a partition of its own as
    far as there are any."""
    others = BESIDE_CONNECTIONS if what is Beside.PRODUCE else 1
    with runner.topic(cluster, topic, NEIGHBOUR_CONNECTIONS + others) as name:
        wanted = -1 if acks is Acks.ALL else 1
        position = raw.produce_error_position(name)

        def load(first: int, count: int, records: int, record_bytes: int) -> raw.RawLoad:
            targets = _targets(cluster, name, Api.PRODUCE, records, record_bytes, wanted)
            chosen = tuple(targets[(first + i) % len(targets)] for i in range(count))
            return raw.RawLoad(chosen, 1, seconds, warmup_s, position)

        jobs: list[tuple[runner.Worker, Any]] = [(raw.run, load(0, NEIGHBOUR_CONNECTIONS, 1, size))]
        if what is Beside.PRODUCE:
            large = load(NEIGHBOUR_CONNECTIONS, others, BESIDE_RECORDS, BESIDE_RECORD_BYTES)
            jobs.append((raw.run, large))
        else:
            read = cluster.partitions(name)[-1]
            jobs.append((cold.run, cold.prepare(cluster, read, seconds, warmup_s)))
        measured = runner.run("Latency", jobs, brokers, 0)
    asked = {"connections": NEIGHBOUR_CONNECTIONS, "size_bytes": size, "acks": acks.value}
    client = f"requests built once, over raw sockets (epoll), {_processes(2)}"
    timed = measured._replace(done=measured.done[:1])
    result = _result("latency", asked, timed, "requests", client)
    batches = measured._replace(done=measured.done[1:])
    test = "produce" if what is Beside.PRODUCE else "consume"
    beside = _result(test, {"connections": others}, batches, "requests", client)
    cpu_s = sum(done.cpu_s for done in measured.done)
    report.show(replace(result, client_cpu_s=cpu_s, beside=beside), json)
    _check(measured.done)


def _check_answers(acks: Acks) -> None:
    if acks is Acks.NONE:
        output.fail_usage("--acks 0: there would be no answer to wait for; choose all or 1")


def _targets(
    cluster: Cluster, topic: str, api: Api, records: int, size: int, acks: int
) -> list[tuple[str, int, bytes]]:
    """An address and a request for each partition; connections take them in turn."""
    targets = []
    for partition in cluster.partitions(topic):
        if api is Api.PRODUCE:
            request = raw.produce_request(topic, partition.partition, records, size, acks)
        else:
            request = raw.metadata_request(topic) if api is Api.METADATA else raw.api_versions_request()
        targets.append((*runner.leader(cluster, partition), request))
    return targets


def _settings(cluster: Cluster, properties: list[str] | None) -> dict[str, Any]:
    return {"bootstrap.servers": cluster.bootstrap, "log_level": 0, **client_properties(properties)}


def _produce(
    cluster: Cluster,
    brokers: frozenset[int],
    topic: str,
    count: int,
    size: int,
    settings: dict[str, Any],
    processes: int,
    properties: list[str] | None,
) -> runner.Measured:
    settings = settings | _settings(cluster, properties)
    shares = [count // processes + (i < count % processes) for i in range(processes)]
    jobs = [
        (workers.produce, Load(settings, topic, share, size=size, seed=i + 1))
        for i, share in enumerate(shares)
    ]
    return runner.run("Producing", jobs, brokers, count)


def _consume(
    cluster: Cluster,
    brokers: frozenset[int],
    topic: str,
    count: int,
    processes: int,
    properties: list[str] | None,
    *,
    filled: bool,
) -> runner.Measured:
    """Each process reads its share of the partitions, to where they end now, but ``count`` in all at most.

    A topic that we filled holds ``count``: what the broker says about its ends need not be believed.
    """
    partitions = cluster.partitions(topic)
    held = _held(cluster, partitions)
    jobs: list[tuple[runner.Worker, Any]] = []
    left = count if filled else min(count, sum(held.values()))
    processes = min(processes, len(partitions))
    for i in range(processes):
        mine = partitions[i::processes]
        share = left if filled and processes == 1 else min(left, sum(held[p] for p in mine))
        left -= share
        chosen = tuple(p.partition for p in mine)
        jobs.append((workers.consume, Load(_settings(cluster, properties), topic, share, partitions=chosen)))
    return runner.run("Consuming", jobs, brokers, count)


def _held(cluster: Cluster, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    from ottla.cli.positions import Kind, Position

    starts = cluster.offsets(partitions, Position(Kind.BEGINNING))
    ends = cluster.offsets(partitions, Position(Kind.END))
    return {partition: ends[partition] - starts[partition] for partition in partitions}


def _result(
    test: str, settings: dict[str, Any], measured: runner.Measured, unit: str, client: str
) -> report.Result:
    done = measured.done
    return report.Result(
        test=test,
        client=client,
        settings=settings,
        unit=unit,
        count=sum(d.count for d in done),
        bytes_total=sum(d.bytes_total for d in done),
        seconds=measured.seconds,
        failed=sum(d.failed for d in done),
        client_cpu_s=sum(d.cpu_s for d in done),
        latencies_s=[latency for d in done for latency in d.latencies_s],
        before=measured.before,
        after=measured.after,
    )


def _processes(count: int) -> str:
    return f"{count} process" + ("" if count == 1 else "es")


def _librdkafka(processes: int) -> str:
    import confluent_kafka

    return f"librdkafka {confluent_kafka.libversion()[0]} through confluent-kafka, {_processes(processes)}"


def _check(done: Sequence[Done]) -> None:
    """CliError where a part of the load failed: its figures are printed, but it is no success."""
    for one in done:
        if one.error:
            raise CliError(f"the load did not go through: {one.error}")
