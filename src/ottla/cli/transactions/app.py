"""`ottla transaction`: what producers have open, as kafka-transactions.sh shows and ends it (KIP-664)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer

from ottla.cli import output, ranges
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.positions import format_time
from ottla.cli.transactions.hanging import Description, OpenTransaction, hanging, open_longer
from ottla.cli.transactions.requests import Filters, Marker, TransactionRequests
from ottla.cli.values import check_transactional_id
from ottla.numbers import INT_MAX, LONG_MAX
from ottla.types import TopicPartition

app = typer.Typer(
    no_args_is_help=True, help="Look at producers' transactions, and end those that nobody else will."
)

EPOCH_MAX = 2**15 - 1
MINUTE_MS = 60_000
# Kafka's transaction.max.timeout.ms, in minutes.
MINUTES_DEFAULT = 15

TransactionalId = Annotated[
    str, typer.Argument(metavar="TRANSACTIONAL_ID", help="The transactional id of a producer.")
]
TopicOption = Annotated[str, typer.Option("--topic", "-t", metavar="TOPIC", help="The topic.")]
PartitionOption = Annotated[
    int, typer.Option("--partition", "-p", metavar="N", parser=whole_number(0), help="The partition.")
]


@app.command(name="list")
@examples(
    ("ottla transaction list", "List the transactional ids and their states."),
    (
        "ottla transaction list --state Ongoing --duration-filter 60000",
        "List transactions that have been open for more than a minute.",
    ),
)
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", "-s", metavar="STATE", help="Only in this state, such as Ongoing. Repeatable."
        ),
    ] = None,
    producer_id: Annotated[
        list[int] | None,
        typer.Option(
            "--producer-id", metavar="N", parser=whole_number(0, LONG_MAX), help="Only of this producer."
        ),
    ] = None,
    duration_filter: Annotated[
        int,
        typer.Option(
            "--duration-filter",
            metavar="MS",
            parser=whole_number(-LONG_MAX, LONG_MAX),
            help="Only those whose transaction runs for longer; all where negative.",
        ),
    ] = -1,
    transactional_id_pattern: Annotated[
        str | None,
        typer.Option(
            "--transactional-id-pattern", metavar="REGEX", help="Only ids that this matches as a whole (RE2)."
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List transactional ids, their coordinators and states; all brokers are asked."""
    filters = Filters(state or (), producer_id or (), max(duration_filter, -1), transactional_id_pattern)
    with _requests(bootstrap, property) as requests:
        found = requests.listed(filters)
    if json:
        output.print_json([listing._asdict() for listing in found])
    elif found:
        output.table(("transactional id", "coordinator", "producer id", "state"), found)
    else:
        output.note("no transactional ids" + (" that match" if filters != Filters() else " yet"))


@app.command()
@examples(
    (
        "ottla transaction describe loader",
        "Show the producer, the state and the open transaction of a transactional id.",
    ),
    ("ottla transaction describe loader --json", "Show the same as JSON."),
)
def describe(
    transactional_id: TransactionalId,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show a transactional id: coordinator, producer, state, timeout, and the transaction that is open."""
    check_transactional_id(transactional_id)
    with _requests(bootstrap, property) as requests:
        found = _described(requests, transactional_id)
    document = _description_json(found, _now_ms())
    if json:
        output.print_json(document)
        return
    shown = {**document, "start_ms": format_time(found.start_ms)}
    shown["partitions"] = " ".join(ranges.compressed(found.partitions)) or None
    width = max(map(len, shown))
    for name, value in shown.items():
        label = "start" if name == "start_ms" else name.replace("_ms", " (ms)").replace("_", " ")
        output.say(f"{label:{width}}  {'-' if value is None else value}")


@app.command(name="describe-producers")
@examples(
    (
        "ottla transaction describe-producers --topic orders --partition 0",
        "Show the producers that a partition remembers.",
    ),
    ("ottla transaction describe-producers -t orders -p 0 --json", "Show the same as JSON."),
)
def describe_producers(
    topic: TopicOption,
    partition: PartitionOption,
    broker_id: Annotated[
        int | None,
        typer.Option(
            "--broker-id",
            metavar="N",
            parser=whole_number(0),
            show_default="the leader",
            help="Ask this replica.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show the producers that a partition remembers, and where their open transactions begin in it."""
    where = TopicPartition(topic, partition)
    with _requests(bootstrap, property) as requests:
        found = requests.producers([where], broker_id)[where]
    if json:
        output.print_json([state.to_json() for state in sorted(found)])
        return
    output.table(
        ("producer id", "epoch", "coordinator epoch", "last sequence", "last record", "transaction from"),
        [
            (
                state.producer_id,
                state.producer_epoch,
                state.coordinator_epoch,
                state.last_sequence,
                format_time(state.last_timestamp_ms),
                state.start_offset if state.is_open else None,
            )
            for state in sorted(found)
        ],
    )


@app.command()
@examples(
    (
        "ottla transaction abort --topic orders --partition 0 --start-offset 4711",
        "Abort the hanging transaction that begins at an offset.",
    ),
    (
        "ottla transaction abort -t orders -p 0 --producer-id 7 --producer-epoch 0 --coordinator-epoch 0",
        "Abort the transaction of a producer.",
    ),
)
def abort(
    topic: TopicOption,
    partition: PartitionOption,
    start_offset: Annotated[
        int | None,
        typer.Option(
            "--start-offset",
            metavar="OFFSET",
            parser=whole_number(0, LONG_MAX),
            help="Where the transaction begins in the partition.",
        ),
    ] = None,
    producer_id: Annotated[
        int | None,
        typer.Option(
            "--producer-id",
            metavar="N",
            parser=whole_number(0, LONG_MAX),
            help="In place of --start-offset, with both epochs.",
        ),
    ] = None,
    producer_epoch: Annotated[
        int | None,
        typer.Option(
            "--producer-epoch", metavar="N", parser=whole_number(0, EPOCH_MAX), help="The producer's."
        ),
    ] = None,
    coordinator_epoch: Annotated[
        int | None,
        typer.Option(
            "--coordinator-epoch",
            metavar="N",
            parser=whole_number(-1),
            help="The latest that describe-producers shows.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Abort a hanging transaction in one partition.

    The leader ends it there, and the coordinator is not asked: see find-hanging first. What a coordinator
    still knows is ended everywhere by force-terminate.
    """
    where = TopicPartition(topic, partition)
    given = _marker(where, start_offset, producer_id, producer_epoch, coordinator_epoch)
    with _requests(bootstrap, property) as requests:
        marker = _marker_at(requests, where, start_offset or 0) if given is None else given
        requests.abort(marker)
    if json:
        output.print_json({"topic": topic, "partition": partition, **_marker_json(marker)})
    else:
        producer = f"producer {marker.producer_id}, epoch {marker.producer_epoch}"
        output.say(f"{where}: the transaction of {producer} was aborted")


@app.command(name="force-terminate")
@examples(
    (
        "ottla transaction force-terminate loader",
        "Abort the open transaction of a transactional id, and fence its producer.",
    ),
    ("ottla transaction force-terminate loader --json", "Do the same, and print JSON."),
)
def force_terminate(
    transactional_id: TransactionalId,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Abort what a transactional id has open, in all partitions, and fence its producer.

    The producer can write nothing more until it begins anew; one in a two-phase commit that was prepared
    loses it, too.
    """
    check_transactional_id(transactional_id)
    with _requests(bootstrap, property) as requests:
        # Whoever fences an id that is not there makes one of it.
        _described(requests, transactional_id)
        producer_id, producer_epoch = requests.fence(transactional_id)
    if json:
        output.print_json(
            {
                "transactional_id": transactional_id,
                "producer_id": producer_id,
                "producer_epoch": producer_epoch,
            }
        )
    else:
        output.say(f"{transactional_id}: nothing is open any more, and its producer is fenced")


@app.command(name="find-hanging")
@examples(
    ("ottla transaction find-hanging --broker-id 1", "Look for hanging transactions in what a broker holds."),
    ("ottla transaction find-hanging --topic orders --partition 0", "Look in one partition only."),
)
def find_hanging(
    broker_id: Annotated[
        int | None,
        typer.Option(
            "--broker-id", metavar="N", parser=whole_number(0), help="Only replicas of this broker."
        ),
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Look at this topic only.")
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            "--partition", "-p", metavar="N", parser=whole_number(0), help="Look at this partition only."
        ),
    ] = None,
    max_transaction_timeout: Annotated[
        int,
        typer.Option(
            "--max-transaction-timeout",
            metavar="MINUTES",
            parser=whole_number(0, INT_MAX),
            help="How long transactions may last: transaction.max.timeout.ms of the brokers.",
        ),
    ] = MINUTES_DEFAULT,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Find transactions that are open in a partition although no coordinator is going to end them.

    They keep consumers with read_committed from all that is behind them; `abort` ends them.
    """
    if topic is None and broker_id is None:
        output.fail_usage("--topic, --broker-id: give one of them, to say where to look")
    if partition is not None and topic is None:
        output.fail_usage("--partition: give --topic as well")
    with _requests(bootstrap, property) as requests:
        if topic is not None and partition is not None:
            partitions = [TopicPartition(topic, partition)]
        else:
            partitions = requests.partitions(topic, broker_id)
        producers = requests.producers(partitions, broker_id)
        now_ms = _now_ms()
        found = _hanging(requests, list(open_longer(producers, now_ms, max_transaction_timeout * MINUTE_MS)))
    if json:
        output.print_json([_open_json(one, now_ms) for one in found])
        return
    output.table(
        ("topic", "partition", "producer id", "epoch", "coordinator epoch", "from", "last record", "minutes"),
        [_open_row(one, now_ms) for one in found],
    )


@contextmanager
def _requests(bootstrap: str, properties: list[str] | None) -> Iterator[TransactionRequests]:
    with closing(DirectCluster(bootstrap, properties)) as cluster:
        yield TransactionRequests(cluster)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _described(requests: TransactionRequests, transactional_id: str) -> Description:
    found = requests.described([transactional_id])[transactional_id]
    if found is None:
        text = f"transactional id {transactional_id!r} is not known; see 'ottla transaction list'"
        raise CliError(text, ExitCode.NOT_FOUND)
    return found


def _hanging(requests: TransactionRequests, candidates: list[OpenTransaction]) -> list[OpenTransaction]:
    if not candidates:
        return []
    producer_ids = sorted({one.producer.producer_id for one in candidates})
    # Older brokers know no filter, and name others as well.
    listed = requests.listed(Filters(producer_ids=producer_ids))
    ids = {one.producer_id: one.transactional_id for one in listed if one.producer_id in producer_ids}
    return hanging(candidates, ids, requests.described(ids.values()))


def _marker(
    where: TopicPartition,
    start_offset: int | None,
    producer_id: int | None,
    producer_epoch: int | None,
    coordinator_epoch: int | None,
) -> Marker | None:
    """The marker that the options say; None where the partition is to be asked."""
    if start_offset is not None:
        if producer_id is not None:
            output.fail_usage("--start-offset, --producer-id: give one of them")
        return None
    if producer_id is None or producer_epoch is None or coordinator_epoch is None:
        output.fail_usage("give --start-offset, or --producer-id, --producer-epoch and --coordinator-epoch")
    return Marker(where, producer_id, producer_epoch, _known(coordinator_epoch))


def _marker_at(requests: TransactionRequests, where: TopicPartition, start_offset: int) -> Marker:
    for state in requests.producers([where])[where]:
        if state.start_offset == start_offset:
            return Marker(where, state.producer_id, state.producer_epoch, _known(state.coordinator_epoch))
    text = f"{where}: no transaction that begins at offset {start_offset} is open"
    raise CliError(text, ExitCode.NOT_FOUND)


def _known(coordinator_epoch: int) -> int:
    """No coordinator has written a marker before the first is written: 0 is no later than any."""
    return max(coordinator_epoch, 0)


def _marker_json(marker: Marker) -> dict[str, Any]:
    found = marker._asdict()
    del found["partition"]
    return found


def _description_json(found: Description, now_ms: int) -> dict[str, Any]:
    is_open = found.start_ms >= 0
    return {
        **found._asdict(),
        "start_ms": found.start_ms if is_open else None,
        "duration_ms": now_ms - found.start_ms if is_open else None,
        "partitions": [str(partition) for partition in sorted(found.partitions)],
    }


def _open_json(one: OpenTransaction, now_ms: int) -> dict[str, Any]:
    place = {"topic": one.partition.topic, "partition": one.partition.partition}
    return {**place, **one.producer.to_json(), "duration_ms": one.age_ms(now_ms)}


def _open_row(one: OpenTransaction, now_ms: int) -> tuple[str | int, ...]:
    state = one.producer
    return (
        *one.partition,
        state.producer_id,
        state.producer_epoch,
        state.coordinator_epoch,
        state.start_offset,
        format_time(state.last_timestamp_ms),
        one.age_ms(now_ms) // MINUTE_MS,
    )
