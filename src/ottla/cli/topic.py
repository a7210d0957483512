"""`ottla topic`: create, list, describe, alter, trim and delete topics."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ottla.cli import output, trim
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, admin_api, connect
from ottla.cli.config import alter_configs, describe_configs
from ottla.cli.errors import DeniedError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, parse_pairs, whole_number
from ottla.cli.positions import Kind, Position
from ottla.cli.ranges import INTERNAL, users_first
from ottla.cli.rights import Right
from ottla.types import TopicPartition

app = typer.Typer(no_args_is_help=True, help="Create, list, describe, alter, trim and delete topics.")

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.")]
Names = Annotated[list[str], typer.Argument(metavar="TOPIC", help="The topics' names.")]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config", "-c", metavar="NAME=VALUE", help="A topic configuration, such as retention.ms=60000."
    ),
]


@app.command()
@examples(
    ("ottla topic create orders", "Create a topic with the broker's defaults."),
    (
        "ottla topic create payments refunds --partitions 6 --config retention.ms=3600000",
        "Create two topics with six partitions each, which keep messages for an hour.",
    ),
    ("ottla topic create orders --if-not-exists", "Succeed if the topic exists already."),
)
def create(
    topic: Names,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            "-p",
            metavar="N",
            parser=whole_number(1),
            show_default="num.partitions of the broker",
            help="The number of partitions.",
        ),
    ] = None,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            "--replication-factor",
            "-r",
            metavar="N",
            parser=whole_number(1),
            show_default="default.replication.factor of the broker",
            help="The number of replicas.",
        ),
    ] = None,
    config: Config = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Succeed where it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the broker check, and create nothing.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Create topics."""
    configs = parse_pairs("--config", config)
    cluster = connect(bootstrap, property)
    wanted = [
        admin_api().NewTopic(name, partitions or -1, replication_factor or -1, config=configs)
        for name in topic
    ]
    futures = cluster.admin.create_topics(wanted, validate_only=dry_run, request_timeout=REQUEST_TIMEOUT_S)
    forgiven = {ExitCode.EXISTS: "exists"} if if_not_exists else {}
    result = "would be created" if dry_run else "created"
    done, errors = cluster.outcomes("topic", futures, result, forgiven, "create")
    output.report("topic", done, errors, json)


@app.command(name="list")
@examples(
    ("ottla topic list", "List the topics."),
    ("ottla topic list --internal --json", "List the brokers' own topics too, as JSON."),
)
def list_(
    internal: Annotated[
        bool, typer.Option("--internal", help="Also the topics that brokers keep for themselves.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List topics."""
    cluster = connect(bootstrap, property)
    rows = [
        (name, len(found.partitions), _replication_factor(found))
        for name, found in sorted(cluster.metadata.topics.items(), key=lambda one: users_first(one[0]))
        if internal or name not in INTERNAL
    ]
    if json:
        output.print_json(
            [
                {"topic": name, "partitions": count, "replication_factor": factor}
                for name, count, factor in rows
            ]
        )
    elif rows:
        output.table(("topic", "partitions", "replicas"), rows)
    else:
        output.note("no topics yet; create one with 'ottla topic create NAME'")


@app.command()
@examples(
    ("ottla topic describe orders", "Show the partitions of a topic, their leaders, replicas and offsets."),
    ("ottla topic describe orders payments --json", "Show two topics as JSON."),
)
def describe(
    topic: Names,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show topics: partitions with leaders, replicas and offsets, and the configurations set on them."""
    cluster = connect(bootstrap, property)
    described = [_describe(cluster, name) for name in topic]
    if json:
        output.print_json(described)
        return
    for position, found in enumerate(described):
        if position:
            output.say()
        _show(found)


@app.command()
@examples(
    ("ottla topic alter orders --partitions 12", "Give a topic twelve partitions in all."),
    ("ottla topic alter orders --config retention.ms=86400000", "Keep messages for a day."),
    (
        "ottla topic alter orders --delete-config retention.ms --dry-run",
        "Have the broker check a change, and change nothing.",
    ),
)
def alter(
    topic: Name,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            "-p",
            metavar="N",
            parser=whole_number(1),
            show_default="as it is",
            help="Grow to this many partitions.",
        ),
    ] = None,
    config: Config = None,
    delete_config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Return this configuration to its default. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the broker check, and change nothing.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Add partitions to a topic, or change its configurations.

    Both together are two requests, configurations first: where the second fails the first stays done.
    """
    if partitions is None and not config and not delete_config:
        output.fail_usage("give --partitions, --config or --delete-config")
    configs: dict[str, str | None] = {**parse_pairs("--config", config)}
    configs |= dict.fromkeys(delete_config or ())
    cluster = connect(bootstrap, property)
    cluster.topic(topic)
    done = []
    if configs:
        alter_configs(cluster, "topic", topic, configs, dry_run=dry_run)
        done.append((topic, "configurations would change" if dry_run else "configurations changed"))
    if partitions is not None:
        futures = cluster.admin.create_partitions(
            [admin_api().NewPartitions(topic, partitions)],
            validate_only=dry_run,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        cluster.wait(futures[topic], f"topic {topic!r}", Right("alter", "topic", topic))
        done.append((topic, f"{'would have' if dry_run else 'has'} {partitions} partitions"))
    output.report("topic", done, (), json)


@app.command()
@examples(
    ("ottla topic delete payments refunds", "Delete two topics and their messages."),
    ("ottla topic delete payments --if-exists", "Succeed if there is no such topic."),
)
def delete(
    topic: Names,
    if_exists: Annotated[bool, typer.Option("--if-exists", help="Succeed where there is none.")] = False,
    internal: Annotated[
        bool,
        typer.Option(
            "--internal", help="Also those that brokers keep for themselves: what is in them is forgotten."
        ),
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Delete topics and their messages."""
    for name in topic:
        if name in INTERNAL and not internal:
            output.fail_usage(
                f"topic {name!r} holds {INTERNAL[name]}: give --internal to delete it all the same"
            )
    cluster = connect(bootstrap, property)
    futures = cluster.admin.delete_topics(topic, request_timeout=REQUEST_TIMEOUT_S)
    forgiven = {ExitCode.NOT_FOUND: "does not exist"} if if_exists else {}
    output.report("topic", *cluster.outcomes("topic", futures, "deleted", forgiven, "delete"), json)


app.command(name="trim")(trim.trim)


def _show(found: dict[str, Any]) -> None:
    output.say(
        f"{found['topic']}: replication factor {found['replication_factor']}, id {found['topic_id'] or '-'}"
    )
    configs = found["configs"] or {}
    for name, value in configs.items():
        output.say(f"  {name}={value}")
    # What a compacted topic holds cannot be told from its offsets, nor whether it is one without its
    # configurations.
    countable = found["configs"] is not None and "compact" not in configs.get("cleanup.policy", "")
    output.table(
        ("partition", "leader", "replicas", "isr", "start", "end", "messages", "trouble"),
        [
            (
                p["partition"],
                "none" if p["leader"] is None else str(p["leader"]),
                ",".join(map(str, p["replicas"])),
                ",".join(map(str, p["isr"])),
                p["start_offset"],
                p["end_offset"],
                p["end_offset"] - p["start_offset"] if p["end_offset"] is not None and countable else None,
                _trouble(p),
            )
            for p in found["partitions"]
        ],
    )


def _trouble(partition: dict[str, Any]) -> output.Cell:
    if partition["leader"] is None:
        return output.Marked("offline", output.ALARM)
    if len(partition["isr"]) < len(partition["replicas"]):
        return output.Marked("under-replicated", output.WARNING)
    return None


def _replication_factor(topic: Any) -> int:
    return max((len(partition.replicas) for partition in topic.partitions.values()), default=0)


def _describe(cluster: Cluster, name: str) -> dict[str, Any]:
    found = cluster.topic(name)
    online = [TopicPartition(name, p.id) for p in found.partitions.values() if p.leader >= 0]
    starts = cluster.offsets(online, Position(Kind.BEGINNING))
    ends = cluster.offsets(online, Position(Kind.END))
    try:
        configs = {
            c["name"]: c["value"] for c in describe_configs(cluster, "topic", name) if c["source"] == "topic"
        }
    except DeniedError as error:
        # Everything else takes another right: it is shown.
        configs = None
        output.warn(f"the configurations are not shown: {error}")
    return {
        "topic": name,
        "topic_id": _topic_id(cluster, name),
        "replication_factor": _replication_factor(found),
        "configs": configs,
        "partitions": [
            {
                "partition": p.id,
                "leader": p.leader if p.leader >= 0 else None,
                "replicas": list(p.replicas),
                "isr": list(p.isrs),
                "start_offset": starts.get(TopicPartition(name, p.id)),
                "end_offset": ends.get(TopicPartition(name, p.id)),
            }
            for _, p in sorted(found.partitions.items())
        ],
    }


def _topic_id(cluster: Cluster, name: str) -> str | None:
    """The topic's id as Kafka's tools write it, or None where the broker gives topics none."""
    from confluent_kafka import TopicCollection

    futures = cluster.admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_S)
    return kafka_id(str(cluster.wait(futures[name], f"topic {name!r}").topic_id))


def kafka_id(text: str) -> str | None:
    """An id, of which librdkafka makes base64 in the usual alphabet with padding, as Kafka's Uuid does: safe
    in a URL, and without. None for the id that is none."""
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    return None if set(text) <= {"A"} else text
