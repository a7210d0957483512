"""`ottla producers`: the producers that the partitions of a topic remember (DescribeProducers, KIP-664)."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from ottla.cli import output, ranges
from ottla.cli.direct import DirectCluster
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.positions import format_time
from ottla.cli.transactions.requests import TransactionRequests
from ottla.types import TopicPartition


@examples(
    ("ottla producers orders", "Show the producers that the partitions of a topic remember."),
    ("ottla producers orders --partition 0-2 --json", "Show those of three partitions as JSON."),
)
def producers(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.")],
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            "-p",
            metavar="N,N-N",
            show_default="all",
            help="Only these partitions, such as 0-5,8.",
        ),
    ] = None,
    broker_id: Annotated[
        int | None,
        typer.Option(
            "--broker-id",
            metavar="N",
            parser=whole_number(0),
            help="Ask the replicas on this broker instead of the leaders.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show the producers that each partition of a topic remembers, with their open transactions.

    A partition remembers idempotent and transactional producers until producer.id.expiration.ms is over. This
    needs the right to read the topic.
    """
    if partition is not None:
        ranges.spans("--partition", partition)
    with closing(DirectCluster(bootstrap, property)) as cluster:
        requests = TransactionRequests(cluster)
        known = [one.partition for one in requests.partitions(topic)]
        chosen = known if partition is None else ranges.parse("--partition", partition, known)
        if broker_id is not None:
            held = {one.partition for one in requests.partitions(topic, broker_id)}
            chosen = chosen if partition is not None else [one for one in chosen if one in held]
        found = requests.producers([TopicPartition(topic, number) for number in chosen], broker_id)
    states = [(where, state) for where in sorted(found) for state in sorted(found[where])]
    output.listing(
        [{"topic": where.topic, "partition": where.partition, **state.to_json()} for where, state in states],
        ("partition", "producer id", "epoch", "last sequence", "last record", "transaction from"),
        [
            (
                where.partition,
                state.producer_id,
                state.producer_epoch,
                state.last_sequence,
                format_time(state.last_timestamp_ms),
                state.start_offset if state.is_open else None,
            )
            for where, state in states
        ],
        json,
        none=f"no partition of topic {topic!r} remembers a producer",
    )
