"""The order service (aiokafka): takes orders from customers who do not exist, and puts them on shop.orders.

What an order costs, it asks the stock service: request and reply over two topics. Each question carries an id
of its own and says where the answer is wanted; answers are matched by the id, in any order. A question that
is not answered in time is asked again under the same id, and the answer that comes too late is dropped.

Some orders are poison on purpose: an old till sends bytes that nobody can read, and a few cards are refused
for good. They have to end as dead letters, and hold nobody up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from examples.messaging import topics

ITEMS = ("kettle", "lamp", "teapot", "chair", "rug", "clock", "vase", "mirror")
CUSTOMERS = 40
# A quiet shop, a rush, a quiet shop: seconds, and orders in each second.
DAY = ((3.0, 20), (5.0, 70), (7.0, 15))
# Every so many orders comes one of these.
UNREADABLE_EVERY = 29
REFUSED_EVERY = 53

ANSWER_TIMEOUT_S = 5.0
QUESTIONS_AT_ONCE_MAX = 100


@dataclass
class Taken:
    """What the service did; written beside the logs at its end. Orders by their ids."""

    placed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    asked: int = 0
    answered: int = 0
    asked_again: int = 0
    late_answers: int = 0


class StockQuestions:
    """Request and reply: `ask` sends a question and waits for the answer that carries its id."""

    def __init__(self, producer: AIOKafkaProducer, bootstrap: str, taken: Taken) -> None:
        self._producer = producer
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id="orders-answers")
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._taken = taken
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read answers from the topic's end on: those for an earlier life of this service are not ours."""
        await self._consumer.start()
        mine = TopicPartition(topics.ANSWERS, 0)
        self._consumer.assign([mine])
        # The position has to be known before the first question is asked, or its answer may be missed.
        await self._consumer.seek_to_end(mine)
        await self._consumer.position(mine)
        self._reader = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._consumer.stop()

    async def _read(self) -> None:
        async for message in self._consumer:
            headers = dict(message.headers)
            waiting = self._waiting.pop(headers.get(topics.CORRELATION_ID, b"").decode(), None)
            if waiting is None or waiting.done():
                self._taken.late_answers += 1
            else:
                waiting.set_result(json.loads(message.value))

    async def ask(self, customer: str, question: dict[str, Any]) -> dict[str, Any]:
        """The answer; asked again each time that it does not come within ANSWER_TIMEOUT_S."""
        correlation_id = uuid.uuid4().hex
        headers = [
            (topics.CORRELATION_ID, correlation_id.encode()),
            (topics.REPLY_TO, topics.ANSWERS.encode()),
            (topics.REPLY_PARTITION, b"0"),
        ]
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = answer
        self._taken.asked += 1
        while True:
            await self._producer.send_and_wait(
                topics.QUESTIONS, topics.encode(question), key=customer.encode(), headers=headers
            )
            try:
                found = await asyncio.wait_for(asyncio.shield(answer), ANSWER_TIMEOUT_S)
            except TimeoutError:
                self._taken.asked_again += 1
                continue
            self._taken.answered += 1
            return found


class OrderService:
    """Takes orders at the pace of DAY until told to stop, or until it has `orders_max` of them."""

    def __init__(self, bootstrap: str, run: str, orders_max: int | None) -> None:
        self.taken = Taken()
        self._bootstrap = bootstrap
        self._run = run
        self._orders_max = orders_max
        # Seeded with the run's name: the same run asks for the same things.
        self._dice = random.Random(run)
        self._stopping = asyncio.Event()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, client_id="orders", enable_idempotence=True, acks="all", linger_ms=2
        )
        self._questions = StockQuestions(self._producer, bootstrap, self.taken)

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        await self._producer.start()
        await self._questions.start()
        under_way: set[asyncio.Task[None]] = set()
        started_at = time.monotonic()
        number = 0
        try:
            while not self._stopping.is_set() and number != self._orders_max:
                if len(under_way) < QUESTIONS_AT_ONCE_MAX:
                    task = asyncio.create_task(self._take(number))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    number += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 1 / pace(time.monotonic() - started_at))
            await asyncio.gather(*under_way)
        finally:
            await self._questions.stop()
            await self._producer.stop()

    async def _take(self, number: int) -> None:
        order = f"{self._run}-{number:06}"
        customer = f"customer-{self._dice.randrange(CUSTOMERS):02}"
        item, quantity = self._dice.choice(ITEMS), self._dice.randint(1, 3)
        if number % UNREADABLE_EVERY == UNREADABLE_EVERY - 1:
            # An old till: fields of fixed width, in a code page of its own.
            await self._producer.send_and_wait(
                topics.ORDERS, b"\x02\xfe" + f"{order:<20}{item:<10}{quantity:03}".encode(), key=b"till-7"
            )
            self.taken.unreadable.append(order)
            return
        answer = await self._questions.ask(customer, {"order": order, "item": item, "quantity": quantity})
        refused = number % REFUSED_EVERY == REFUSED_EVERY - 1
        event = {
            "order": order,
            "customer": customer,
            "item": item,
            "quantity": quantity,
            "cents": answer["cents"],
            "card": "stolen" if refused else "valid",
        }
        await self._producer.send_and_wait(topics.ORDERS, topics.encode(event), key=customer.encode())
        self.taken.placed.append(order)
        if refused:
            self.taken.refused.append(order)


def pace(second: float) -> int:
    """Orders in each second, at this second of the run."""
    second %= sum(length for length, _ in DAY)
    for length, orders in DAY:
        if second < length:
            return orders
        second -= length
    return DAY[-1][1]


async def serve(arguments: argparse.Namespace) -> None:
    service = OrderService(arguments.bootstrap, arguments.run, arguments.orders)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.stop)
    try:
        await service.run()
    finally:
        arguments.report.write_text(json.dumps(asdict(service.taken)))


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m examples.messaging.orders", description=__doc__)
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--run", required=True, help="the first part of the orders' ids")
    options.add_argument("--orders", type=int, help="how many; otherwise until SIGTERM")
    options.add_argument("--report", type=Path, required=True, help="where to say at the end what was done")
    asyncio.run(serve(options.parse_args()))


if __name__ == "__main__":
    main()
