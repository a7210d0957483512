"""`ottla top --once`: one interval, as tables or as one JSON document."""

from __future__ import annotations

import math
from typing import Any

from ottla.cli import output
from ottla.cli.top import rows
from ottla.cli.top.panels import CLIENTS, PANELS, TOPICS, cells, sort
from ottla.cli.top.picture import how_to_listen
from ottla.cli.top.snapshot import Snapshot


def document(snapshot: Snapshot, interval_s: float, *, internal: bool) -> dict[str, Any]:
    """All of it, ready for JSON: docs/TOP.md says what the fields are."""
    return {
        "cluster_id": snapshot.cluster_id,
        "controller": snapshot.controller if snapshot.controller in snapshot.brokers else None,
        "interval_s": round(interval_s, 3),
        "brokers": [_fields(row) for row in rows.brokers(snapshot)],
        "topics": [_fields(row) for row in rows.topics(snapshot, internal=internal)],
        "groups": [_fields(row) for row in rows.groups(snapshot)],
        "clients": [_fields(row) for row in sort(CLIENTS, rows.connections(snapshot), CLIENTS.sort)],
        "silent": [{"node_id": node, "reason": why} for node, why in sorted(snapshot.silent.items())],
        "notes": list(snapshot.listened.notes),
    }


def _fields(row: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in row._asdict().items()}


def _plain(value: Any) -> Any:
    """JSON has no infinity, and nobody needs more than milliseconds or thousandths of a message."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def show(snapshot: Snapshot, *, internal: bool) -> None:
    """All of it, for people."""
    for number, panel in enumerate(PANELS):
        found = rows.topics(snapshot, internal=internal) if panel is TOPICS else panel.rows(snapshot)
        if number:
            output.say()
        output.say(f"{panel.title.lower()}: {len(found)}")
        if not found:
            if panel is CLIENTS:
                for line in how_to_listen(snapshot):
                    output.say(line)
            continue
        output.table(
            [column.title for column in panel.columns],
            [cells(panel, row) for row in sort(panel, found, panel.sort)],
            right=[i for i, column in enumerate(panel.columns) if not column.is_name],
        )
    for node, why in sorted(snapshot.silent.items()):
        output.warn(f"node {node} does not answer: {why}")
