"""The shop: each order is charged, packed and announced once, though a member of billing is killed."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from examples_support import output_of, picture_of, run_example, start

from interop.process import BrokerProcess, wait_until

ORDERS = 320


def read_all(bootstrap: str, topic: str) -> list[Any]:
    """All messages of a topic with one partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Any] = []
    while len(messages) < end:
        messages += consumer.consume(end - len(messages), 10)
    consumer.close()
    return messages


def test_every_order_is_done_once(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    shop = tmp_path / "shop"
    picture = picture_of("messaging")
    picture.unlink(missing_ok=True)
    arguments = ["--orders", str(ORDERS), "--directory", str(shop), "--picture", str(picture)]
    run = run_example("messaging", broker.bootstrap, tmp_path, *arguments, timeout_s=100)

    taken = json.loads((shop / "orders.json").read_text())
    poison = {*taken["unreadable"], *taken["refused"]}
    wanted = set(taken["placed"]) - poison
    assert len(taken["placed"]) + len(taken["unreadable"]) == ORDERS
    assert taken["unreadable"]
    assert taken["refused"]

    charges = sqlite3.connect(shop / "ledger.db").execute('SELECT "order", attempt FROM charges').fetchall()
    assert sorted(order for order, _ in charges) == sorted(wanted)
    assert {attempt for _, attempt in charges} == {0, 1, 2}, "no charge was retried"
    assert {path.stem for path in (shop / "parcels").iterdir()} == wanted
    assert {path.stem for path in (shop / "outbox").iterdir()} == wanted

    dead = {}
    for message in read_all(broker.bootstrap, "shop.billing.dead-letters"):
        headers = {name: value.decode() for name, value in message.headers()}
        (order,) = [order for order in poison if order.encode() in message.value()]
        dead[order] = headers
    assert dead.keys() == poison
    assert {dead[order]["attempt"] for order in taken["unreadable"]} == {"0"}
    assert {dead[order]["attempt"] for order in taken["refused"]} == {"2"}
    assert {dead[order]["error"] for order in taken["refused"]} == {"card refused"}
    assert all(headers["origin"].startswith("shop.orders-") for headers in dead.values())

    assert run.figures["questions asked"] == run.figures["questions answered"] == len(taken["placed"])
    assert run.figures["killed"] == "billing-1"
    assert run.figures["most members of billing"] >= 2
    assert "shop.billing&#160;rebalanced" in picture.read_text()


def test_one_that_ends_at_once_keeps_what_it_promises(ottla_process: Any, tmp_path: Path) -> None:
    """Its last orders are taken while nobody looks, and what has not begun yet has nothing to say."""
    broker: BrokerProcess = ottla_process()
    for seconds in ("0.1", "3"):
        run_example("messaging", broker.bootstrap, tmp_path, "--seconds", seconds)


def test_ctrl_c_finishes_what_is_under_way(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    shop, summary = tmp_path / "shop", tmp_path / "summary.json"
    arguments = ["--bootstrap", broker.bootstrap, "--directory", str(shop), "--summary", str(summary)]
    process = start("messaging", *arguments, "--no-kill")
    try:
        wait_until(lambda: len(list((shop / "outbox").glob("*.eml"))) > 20, 60, "mails")
    finally:
        process.send_signal(signal.SIGINT)
        output = output_of(process, 60)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    content = json.loads(summary.read_text())
    assert all(content["promises"].values()), output
    assert content["figures"]["charged"] == content["figures"]["mails"] > 20
    assert content["figures"]["killed"] == "nobody"
