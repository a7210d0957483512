"""A way round a fault of aiokafka 0.14.0, for programs whose test is about something else."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer


class _Gone:
    """In place of a connection that is not there any more."""

    def close(self, reason: Any = None) -> None:
        """It is closed."""


class _Connections(dict[Any, Any]):
    def __missing__(self, key: Any) -> _Gone:
        return _Gone()


def reads_on_after_timeouts(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Have it read on where it would read nothing any more.

    `AIOKafkaClient.send` closes the connection of a request that is out of time. If this has gone, a KeyError
    ends the task that fetches, and nobody looks at that: docs/EXPLORE.md tells of it.
    """
    consumer._client._conns = _Connections(consumer._client._conns)
    return consumer
