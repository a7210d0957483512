"""What the programs beside this share: clients that do not wait for long, and a shop that writes orders.

Short timeouts are no bug and mend none. They make a run short, as a test of a program wants it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from mended_client import reads_on_after_timeouts

# Of the brokers: a group may notice within two seconds that a member is gone.
CONFIG = {"group.min.session.timeout.ms": "1000"}
# Clients ask again after 3 s: if nothing was written for so long, nothing happens any more.
IDLE_S = 10.0

_CLIENT = {"request_timeout_ms": 3_000, "metadata_max_age_ms": 2_000, "retry_backoff_ms": 100}
_MEMBER = {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 500, "rebalance_timeout_ms": 2_000}


def new_producer(bootstrap: str, **options: Any) -> AIOKafkaProducer:
    return AIOKafkaProducer(**{"bootstrap_servers": bootstrap, **_CLIENT, **options})


def new_consumer(bootstrap: str, *topics: str, **options: Any) -> AIOKafkaConsumer:
    """A consumer that commits by itself only where ``options`` say so."""
    usual = {"bootstrap_servers": bootstrap, "enable_auto_commit": False}
    return reads_on_after_timeouts(AIOKafkaConsumer(*topics, **{**usual, **_CLIENT, **_MEMBER, **options}))


async def shop(bootstrap: str, orders: int, pause_s: float = 0.0) -> None:
    """Write orders, each until it is acknowledged. A shop that starts again writes others."""
    name = random.randbytes(4).hex()
    producer = new_producer(bootstrap, enable_idempotence=True)
    await producer.start()
    for number in range(orders):
        value = f"order {number} of {name}".encode()
        await producer.send_and_wait("orders", value, key=b"customer %d" % (number % 4))
        await asyncio.sleep(random.uniform(0, 2 * pause_s))
    await producer.stop()
