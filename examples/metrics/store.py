"""What the detector keeps on its disk: how far it has read, what it knows, and messages that are to be sent.

All of it changes in one transaction per step, so after a `kill -9` the three still fit together: no sample
is taken up twice, and none is left out. A message is sent after that. If the process dies in between, nobody
knows whether it got there; the topic does: `unsent` looks for it before it is sent again.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.metrics import topics

READ_TIMEOUT_S = 20.0


class Store:
    """A file of SQLite. One process has it at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.executescript(
            "CREATE TABLE IF NOT EXISTS positions"
            " (partition INTEGER PRIMARY KEY, first INTEGER, next INTEGER, messages INTEGER);"
            "CREATE TABLE IF NOT EXISTS series (host TEXT, name TEXT, state TEXT, PRIMARY KEY (host, name));"
            "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, message TEXT);"
            # From which offset on a message of the outbox may already be in the topic.
            "CREATE TABLE IF NOT EXISTS alerts_end (id INTEGER PRIMARY KEY CHECK (id = 0), offset INTEGER);"
        )

    def positions(self) -> dict[int, int]:
        """The next offset of each partition; empty before the first step."""
        return dict(self._db.execute("SELECT partition, next FROM positions").fetchall())

    def begin(self, positions: dict[int, int], alerts_end: int) -> None:
        """The first step of all: from where each partition is read, and where the alerts end."""
        with self._transaction():
            rows = [(partition, offset, offset) for partition, offset in positions.items()]
            self._db.executemany("INSERT INTO positions VALUES (?, ?, ?, 0)", rows)
            self._db.execute("INSERT OR REPLACE INTO alerts_end VALUES (0, ?)", (alerts_end,))

    def series(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What was known of each series, by host and name."""
        rows = self._db.execute("SELECT host, name, state FROM series").fetchall()
        return {(host, name): json.loads(state) for host, name, state in rows}

    def step(
        self,
        read: dict[int, tuple[int, int]],
        states: dict[tuple[str, str], dict[str, Any]],
        messages: list[dict[str, Any]],
    ) -> None:
        """One step, all or nothing. `read`: a partition's next offset, and how many messages were read."""
        with self._transaction():
            self._db.executemany(
                "UPDATE positions SET next = ?, messages = messages + ? WHERE partition = ?",
                [(offset, count, partition) for partition, (offset, count) in read.items()],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO series VALUES (?, ?, ?)",
                [(host, name, json.dumps(state)) for (host, name), state in states.items()],
            )
            self._db.executemany(
                "INSERT INTO outbox (message) VALUES (?)", [(json.dumps(message),) for message in messages]
            )

    def outbox(self) -> list[dict[str, Any]]:
        """The messages that are to be sent, in their order."""
        return [json.loads(text) for (text,) in self._db.execute("SELECT message FROM outbox ORDER BY id")]

    def unsent(self, bootstrap: str) -> list[dict[str, Any]]:
        """The messages of the outbox that are not in the topic, after a start: it reads what came since."""
        waiting = self.outbox()
        if not waiting:
            return []
        (since,) = self._db.execute("SELECT offset FROM alerts_end").fetchone()
        there = {(alert["incident"], alert["state"]) for alert in alerts_since(bootstrap, since)}
        return [m for m in waiting if (m["incident"], m["state"]) not in there]

    def sent(self, alerts_end: int) -> None:
        """All of the outbox is in the topic, before `alerts_end`."""
        with self._transaction():
            self._db.execute("DELETE FROM outbox")
            self._db.execute("INSERT OR REPLACE INTO alerts_end VALUES (0, ?)", (alerts_end,))

    def close(self) -> None:
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE, then COMMIT or ROLLBACK."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


def alerts_since(bootstrap: str, offset: int) -> list[dict[str, Any]]:
    """The messages of the alerts topic from `offset` to its present end."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "metrics.nobody", "enable.auto.commit": False}
    )
    try:
        partition = TopicPartition(topics.ALERTS, 0, offset)
        first, end = consumer.get_watermark_offsets(partition, READ_TIMEOUT_S)
        partition.offset = at = max(first, offset)
        consumer.assign([partition])
        alerts = []
        while at < end:
            message = consumer.poll(READ_TIMEOUT_S)
            if message is None:
                raise TimeoutError(f"{topics.ALERTS} could not be read up to its end")
            if error := message.error():
                raise KafkaException(error)
            at = message.offset() + 1
            if alert := topics.decode(message.value()):
                alerts.append(alert)
        return alerts
    finally:
        consumer.close()


def summary(path: Path) -> dict[str, int]:
    """For the end of a run: how many messages the detector took up, and how many there were up to there."""
    if not path.exists():
        return {"taken": 0, "span": 0}
    db = sqlite3.connect(path)
    taken, span = db.execute("SELECT sum(messages), sum(next - first) FROM positions").fetchone()
    db.close()
    return {"taken": taken or 0, "span": span or 0}
