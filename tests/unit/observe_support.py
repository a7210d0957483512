"""Scrapes of a node's metrics, read with the parser of prometheus-client, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from measuring import HANG_S
from ottla.observe.catalogue import METRICS
from ottla.observe.exposition import Page
from ottla.testing import Broker


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


def get(address: str, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = HTTPConnection(address, timeout=HANG_S)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})
        response: HTTPResponse = connection.getresponse()
        return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


Labels = dict[str, str]


class Scraped:
    """Samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]

    def total(self, name: str, **labels: str) -> float:
        """Of all samples with at least these labels; 0 where there are none."""
        return sum(
            value
            for (found, pairs), value in self.samples.items()
            if found == name and labels.items() <= dict(pairs).items()
        )

    def names(self) -> set[str]:
        """The families, as they are called in the catalogue."""
        return {f"{one.name}_total" if one.type == "counter" else one.name for one in self.families}


def scrape(broker: Broker) -> Scraped:
    answer = get(broker.metrics_address, "/metrics")
    assert answer.status == 200, answer
    return Scraped(answer.body.decode())


def scrape_until(broker: Broker, found: Callable[[Scraped], bool]) -> Scraped:
    """Scrapes until something is so, which follows soon."""
    ends_s = time.monotonic() + HANG_S
    while True:
        scraped = scrape(broker)
        if found(scraped):
            return scraped
        assert time.monotonic() < ends_s, scraped.samples
        time.sleep(0.01)


def collected(metrics_of: Callable[[Any, Page], Iterator[None]], parts: Any) -> Scraped:
    """What a subject tells of these parts."""
    made = Page()
    for _ in metrics_of(parts, made):
        pass
    return Scraped(b"".join(made.write(METRICS, openmetrics=False)).decode())
