"""Tells a webhook of each alert. A consumer group: what is told is committed, so each is told at least once.

The request has the incident and its state as `Idempotency-Key`: whoever gets it twice can know. While nobody
answers, or with a 5xx, 408 or 429, it is tried again, later and later; another 4xx means: never.
"""

from __future__ import annotations

import argparse
import threading
import urllib.error
import urllib.request

from confluent_kafka import Consumer, KafkaException

from examples.common.command import stop_event
from examples.metrics import topics

ANSWER_TIMEOUT_S = 10.0
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 30.0


def tell(webhook: str, key: str, content: bytes, stop: threading.Event) -> bool:
    """Until it has been taken (True) or will never be; False as well when it is time to stop."""
    wait_s = RETRY_FIRST_S
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    while True:
        request = urllib.request.Request(webhook, content, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S):
                return True
        except urllib.error.HTTPError as error:
            if 400 <= error.code < 500 and error.code not in (408, 429):
                print(f"{key}: the webhook refuses it: {error}", flush=True)
                return True
            print(f"{key}: {error}; again in {wait_s:.1f} s", flush=True)
        except OSError as error:
            print(f"{key}: {error}; again in {wait_s:.1f} s", flush=True)
        if stop.wait(wait_s):
            return False
        wait_s = min(RETRY_MAX_S, 2 * wait_s)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    options.add_argument("--webhook", required=True, metavar="URL")
    arguments = options.parse_args()
    stop = stop_event()
    topics.create(arguments.bootstrap)
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "client.id": "notifier",
            "group.id": topics.NOTIFIER,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,
        }
    )
    consumer.subscribe([topics.ALERTS])
    while not stop.is_set():
        message = consumer.poll(0.2)
        if message is None:
            continue
        if error := message.error():
            raise KafkaException(error)
        alert = topics.decode(message.value())
        if alert is None or tell(
            arguments.webhook, f"{alert['incident']}/{alert['state']}", message.value(), stop
        ):
            consumer.commit(message=message, asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
