"""`ottla apis`: the requests that each node answers, by version, as kafka-broker-api-versions.sh shows them.

A version is shared where the node answers it and this command line can ask it.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

from ottla import __version__
from ottla.cli import output, ranges
from ottla.cli.direct import DirectCluster, Unanswered, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, BrokerIds, Json, Properties
from ottla.cli.output import Cell
from ottla.cli.requests import ClusterRequests
from ottla.wire.apis import APIS

SOFTWARE = {"client_software_name": "ottla", "client_software_version": __version__}


class Supported(NamedTuple):
    """An API as a node lists it. ``shared``: the versions that this command line can ask; None where there
    are none."""

    key: int
    name: str | None
    low: int
    high: int
    shared: tuple[int, int] | None


class Level(NamedTuple):
    """A feature: the levels that the node supports, and the one in force, None where that is not said."""

    name: str
    low: int
    high: int
    finalized: int | None


class Node(NamedTuple):
    """What one node says of itself."""

    apis: list[Supported]
    features: list[Level]


@examples(
    ("ottla apis", "Show which requests each node answers, in which versions."),
    ("ottla apis --broker-id 1 --json", "Ask node 1 only, and print JSON."),
)
def apis(
    broker_id: BrokerIds = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show the requests (APIs) that each node answers: versions, those shared with this client, and features.

    Nodes that answer alike are shown together. If a node does not answer, the others are shown, and the
    command exits with 3. This needs no right.
    """
    found: dict[int, Node] = {}
    silent: list[CliError] = []
    with closing(DirectCluster(bootstrap, property)) as cluster:
        requests = ClusterRequests(cluster)
        nodes = requests.nodes()
        for node in broker_id or ():
            requests.check_node(node)
        for node in sorted(set(broker_id or nodes)):
            try:
                found[node] = _ask(cluster, node)
            except Unanswered as error:
                silent.append(CliError(f"node {node} does not answer: {error}", ExitCode.UNREACHABLE))
    if json:
        output.print_json([_json(node, one) for node, one in found.items()])
    else:
        _show(found)
    output.raise_last(silent)


def _ask(cluster: DirectCluster, node: int) -> Node:
    answer = cluster.ask_node(node, "ApiVersions", {**SOFTWARE, "cluster_id": None, "node_id": -1})
    check(answer.error_code, None, f"node {node}")
    levels = {one.name: one.max_version_level for one in getattr(answer, "finalized_features", ())}
    return Node(
        sorted(_supported(one.api_key, one.min_version, one.max_version) for one in answer.api_keys),
        sorted(
            Level(one.name, one.min_version, one.max_version, levels.get(one.name))
            for one in getattr(answer, "supported_features", ())
        ),
    )


def _supported(key: int, low: int, high: int) -> Supported:
    api = APIS.get(key)
    shared = None
    if api is not None and max(low, api.version_min) <= min(high, api.version_max):
        shared = max(low, api.version_min), min(high, api.version_max)
    return Supported(key, api.name if api is not None else _name(key), low, high, shared)


# APIs that kio has no messages for: those that Kafka 4.0 has removed, and the newest of Kafka 4.4.
NAMES = {
    4: "LeaderAndIsr",
    5: "StopReplica",
    6: "UpdateMetadata",
    7: "ControlledShutdown",
    93: "StreamsGroupTopologyDescriptionUpdate",
    94: "UnregisterController",
}


def _name(key: int) -> str | None:
    """Kafka's name of an API that we do not serve; None for one of a newer release."""
    from kio.schema.index import api_key_map

    if key in NAMES:
        return NAMES[key]
    schema = api_key_map.get(key)
    return None if schema is None else "".join(word.capitalize() for word in schema.split("_"))


def _show(found: dict[int, Node]) -> None:
    alike: list[tuple[Node, list[int]]] = []
    for node, one in found.items():
        same = next((nodes for other, nodes in alike if other == one), None)
        if same is None:
            alike.append((one, [node]))
        else:
            same.append(node)
    for position, (one, nodes) in enumerate(alike):
        if position:
            output.say()
        word = "node" if len(nodes) == 1 else "nodes"
        output.say(f"{word} {ranges.numbers(nodes)}: {output.counted(len(one.apis), 'API')}")
        output.table(("api", "key", "versions", "shared"), [_row(api) for api in one.apis])
        if one.features:
            output.say()
            output.table(
                ("feature", "supported", "finalized"),
                [(level.name, _span(level.low, level.high), level.finalized) for level in one.features],
            )


def _row(api: Supported) -> tuple[Cell, ...]:
    shared = "none" if api.shared is None else _span(*api.shared)
    return api.name, api.key, _span(api.low, api.high), shared


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _json(node: int, one: Node) -> dict[str, Any]:
    return {
        "node_id": node,
        "apis": [
            {
                "name": api.name,
                "key": api.key,
                "version_min": api.low,
                "version_max": api.high,
                "shared_min": None if api.shared is None else api.shared[0],
                "shared_max": None if api.shared is None else api.shared[1],
            }
            for api in one.apis
        ],
        "features": [
            {
                "feature": level.name,
                "supported_min": level.low,
                "supported_max": level.high,
                "level": level.finalized,
            }
            for level in one.features
        ],
    }
