"""`ottla cluster status`: the processes of a local cluster, and what its nodes say of its partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ottla.cli import health, output
from ottla.cli.client import connect
from ottla.cli.errors import CliError
from ottla.cli.local import processes
from ottla.cli.local.layout import HOST, Layout, LocalNode
from ottla.cli.local.secure import ADMIN, client_properties
from ottla.cli.local.supervisor import LOGS, read_state
from ottla.log.data_dir import CLEAN_SHUTDOWN_FILE

# States of a node: the cluster counts on it; it runs, and the cluster does not; it had a clean shutdown; it
# ended without one; it has never run.
RUNNING, FENCED, STOPPED, DEAD, NEW = "running", "fenced", "stopped", "dead", "new"
# What the cluster says of its partitions, by what it is called here.
TROUBLES = ("offline_partitions", "under_min_isr_partitions", "under_replicated_partitions")


def status(directory: Path) -> dict[str, Any]:
    """The whole report, ready for JSON. What the cluster would have to say is null where it says nothing."""
    layout, pids = read_state(directory)
    wanted = [
        *(processes.of_node(directory, node) for node in layout.nodes),
        *(processes.of_member(directory, member) for member in layout.members),
    ]
    found = processes.find(wanted, pids)
    of_nodes, of_members = found[: len(layout.nodes)], found[len(layout.nodes) :]
    report, why = _ask(directory, layout, any(of_nodes))
    said = {} if report is None else {broker["node_id"]: broker for broker in report["brokers"]}
    controller = None if report is None else report["controller"]
    return {
        "directory": str(directory),
        "bootstrap": layout.bootstrap,
        "running": any(of_nodes),
        "cluster_id": None if report is None else report["cluster_id"],
        "nodes": [
            _node(directory, node, pid, said.get(node.id), controller)
            for node, pid in zip(layout.nodes, of_nodes, strict=True)
        ],
        "etcd": [
            {
                "name": member.name,
                "pid": pid,
                "host": HOST,
                "port": member.client_port,
                # Nodes that run ask it for all that they decide.
                "state": RUNNING if pid is not None else DEAD if any(of_nodes) else STOPPED,
            }
            for member, pid in zip(layout.members, of_members, strict=True)
        ],
        **{key: None if report is None else report[key] for key in TROUBLES},
        "error": why,
    }


def _ask(directory: Path, layout: Layout, running: bool) -> tuple[dict[str, Any] | None, str | None]:
    """What the nodes say of the cluster, and why they say nothing."""
    if not running:
        return None, None
    properties = [f"@{client_properties(directory, ADMIN)}"] if layout.secure else []
    try:
        return health.describe(connect(layout.bootstrap, properties)), None
    except CliError as error:
        return None, str(error)


def _node(
    directory: Path,
    node: LocalNode,
    pid: int | None,
    said: Mapping[str, Any] | None,
    controller: int | None,
) -> dict[str, Any]:
    data = directory / node.folder
    if pid is not None:
        state = RUNNING if said is not None and said["state"] == health.ALIVE else FENCED
    elif not data.is_dir():
        state = NEW
    else:
        state = STOPPED if (data / CLEAN_SHUTDOWN_FILE).exists() else DEAD
    return {
        "node_id": node.id,
        "pid": pid,
        "host": HOST,
        "port": node.port,
        "rack": node.rack,
        "state": state,
        "roles": ["broker", "controller"] if node.id == controller and pid is not None else ["broker"],
        "leads": None if said is None else said["leads"],
        "replicas": None if said is None else said["replicas"],
        "under_replicated": None if said is None else said["behind"],
        "log": str(directory / LOGS / f"{node.folder}.log"),
    }


def show(report: Mapping[str, Any]) -> None:
    """The report for people."""
    output.say_marked(f"cluster in {report['directory']}: ", *_summary(report))
    output.table(
        ("node", "pid", "address", "state", "roles", "leads", "replicas", "under-replicated"),
        [
            (
                node["node_id"],
                node["pid"],
                f"{node['host']}:{node['port']}",
                _state(node["state"]),
                ",".join(node["roles"]),
                node["leads"],
                node["replicas"],
                output.marked(node["under_replicated"], output.WARNING, when=bool(node["under_replicated"])),
            )
            for node in report["nodes"]
        ],
    )
    output.say()
    output.table(
        ("store", "pid", "address", "state"),
        [
            (one["name"], one["pid"], f"{one['host']}:{one['port']}", _state(one["state"]))
            for one in report["etcd"]
        ],
    )
    if report["error"] is not None:
        output.warn(f"no node says how the partitions are: {report['error']}")


def _state(state: str) -> output.Cell:
    styles = {DEAD: output.ALARM, FENCED: output.WARNING}
    return output.marked(state, styles.get(state, ""), when=state in styles)


def _summary(report: Mapping[str, Any]) -> list[str | output.Marked]:
    nodes: Sequence[Mapping[str, Any]] = report["nodes"]
    running = sum(node["state"] == RUNNING for node in nodes)
    parts: list[str | output.Marked] = [f"{running} of {output.counted(len(nodes), 'node')} running"]
    # What is the matter with partitions is known where the cluster answers.
    return parts + (health.troubles(report) if report["cluster_id"] is not None else [])
