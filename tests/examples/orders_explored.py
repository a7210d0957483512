"""The order service of the messaging example against a cluster that fails, for `test_messaging_explored`.

Its code is the example's, unchanged. The stock, which is in Node.js there, answers from a small program here.
"""

from __future__ import annotations

import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from examples.messaging import orders, topics
from ottla.explore import World, checks, explore

ORDERS = 60
TOPICS = {topics.ORDERS: 3, topics.QUESTIONS: 2, topics.ANSWERS: 1}
FAULTS = {"kill": 2, "restart": 1, "isolate": 1, "break": 2, "lose": 1, "slow-link": 1}


async def stock(bootstrap: str) -> None:
    """Answers each question at most once, where and under the id that it says: some answers never come."""
    consumer = AIOKafkaConsumer(
        topics.QUESTIONS,
        bootstrap_servers=bootstrap,
        group_id=topics.STOCK,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6_000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for question in consumer:
        await consumer.commit()
        await answer(question, producer)


async def answer(question: ConsumerRecord, producer: AIOKafkaProducer) -> None:
    asked, headers = json.loads(question.value), dict(question.headers)
    await producer.send_and_wait(
        headers[topics.REPLY_TO].decode(),
        topics.encode({"order": asked["order"], "cents": 100 * asked["quantity"]}),
        partition=int(headers[topics.REPLY_PARTITION]),
        headers=[(topics.CORRELATION_ID, headers[topics.CORRELATION_ID])],
    )


def order_of(record: checks.StoredRecord) -> str:
    """The id of an order, also of one that comes from an old till."""
    assert record.value is not None
    try:
        return topics.decode(record.value)["order"]
    except ValueError:
        return record.value[2:22].decode().strip()


async def takes_all(world: World) -> None:
    service = orders.OrderService(world.bootstrap, "run", ORDERS)
    answering = world.program("stock", stock, world.bootstrap, restarts=True)
    world.program("orders", service.run)
    for _ in range(5):
        await world.run(2.5)
        answering.kill()
        await world.run(0.5)
        answering.start()
    await world.settle()
    taken = service.taken
    assert len(taken.placed) + len(taken.unreadable) == ORDERS
    assert taken.asked == taken.answered == len(taken.placed)
    found = [order_of(record) for record in await world.records(topics.ORDERS)]
    assert sorted(found) == sorted([*taken.placed, *taken.unreadable])


@explore(seeds=40, topics=TOPICS, faults=FAULTS)
async def every_order_is_taken_once(world: World) -> None:
    await takes_all(world)


@explore(seeds=40, topics=TOPICS, faults=FAULTS)
async def questions_are_asked_once(world: World) -> None:
    orders.ANSWER_TIMEOUT_S = 1e6
    await takes_all(world)
