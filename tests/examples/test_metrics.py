"""Metrics: a burst is one alert and no more, whatever is killed; and each part of what says so."""

from __future__ import annotations

import http.server
import json
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from examples_browser import a_browser, click, text_of, until
from examples_support import ROOT, output_of, picture_of, python_of, start

from examples.metrics import incidents, samples, topics
from examples.metrics.incidents import Series, Watch
from examples.metrics.store import Store
from interop.process import BrokerProcess, wait_until


def read_all(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """What is in a topic with one partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Any] = []
    deadline = time.monotonic() + 60
    while len(messages) < end:
        assert time.monotonic() < deadline
        messages += consumer.consume(end - len(messages), 0.5)
    consumer.close()
    return [json.loads(message.value()) for message in messages]


# ------------------------------------------------------------ all of it


def test_a_burst_is_one_alert_and_no_more(ottla_process: Any, tmp_path: Path) -> None:
    """Real agents, a real queue of files; the detector is killed while the incident is on."""
    broker: BrokerProcess = ottla_process()
    summary = tmp_path / "summary.json"
    # Without `--seconds`: a run that ends by itself takes its page away, maybe before the browser has looked.
    arguments = ["--bootstrap", broker.bootstrap, "--port", "0", "--summary", str(summary)]
    arguments += ["--interval", "0.25"]
    process = start("metrics", *arguments)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.match(r"the plot: (\S+)", first)
        assert found, first
        with a_browser() as driver:
            driver.get(found[1])
            until(
                driver,
                "return document.querySelector('.card.firing[data-series=\"filecount-spool/files\"]')",
                "red",
            )
            until(driver, "return document.querySelector('#alerts .resolved')", "the end of the incident")
            until(
                driver,
                "return document.querySelectorAll('#heard .resolved').length",
                "the webhook to hear it",
            )
            assert "Jobs that wait" in text_of(driver, "#alerts")
            assert driver.execute_script("return document.querySelectorAll('#alerts li').length") == 1
            driver.save_screenshot(str(picture_of("metrics", "png")))
    finally:
        process.terminate()
        output = output_of(process, 90)
    assert process.returncode == 0, output
    figures = json.loads(summary.read_text())["figures"]
    assert figures["alerts of the burst"] == figures["messages that it is over"] == 1
    assert figures["other alerts"] == 0
    assert figures["killed"] == "detector"

    alerts = read_all(broker.bootstrap, topics.ALERTS)
    assert [alert["state"] for alert in alerts] == ["firing", "resolved"]
    assert len({alert["incident"] for alert in alerts}) == 1
    assert alerts[1]["worst"] > 150
    assert alerts[1]["reasons"][0].startswith("unusual")
    series = Counter(score["series"] for score in read_all(broker.bootstrap, topics.SCORES))
    assert {
        "cpu/percent-active",
        "memory/percent-used",
        "load/load/shortterm",
        "df-root/percent_bytes-free",
    } <= set(series)
    assert {"psutil-worker/memory-rss", "psutil-host/gauge-processes"} <= set(series)
    assert min(series.values()) > 10


def test_the_button_makes_a_burst_and_ctrl_c_ends_it(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    summary = tmp_path / "summary.json"
    arguments = [
        "--bootstrap",
        broker.bootstrap,
        "--port",
        "0",
        "--no-burst",
        "--no-kill",
        "--interval",
        "0.2",
    ]
    process = start("metrics", *arguments, "--summary", str(summary))
    try:
        assert process.stdout is not None
        found = re.match(r"the plot: (\S+)", process.stdout.readline())
        assert found
        with a_browser() as driver:
            driver.get(found[1])
            card = "document.querySelector('.card[data-series=\"filecount-spool/files\"]')"
            until(
                driver,
                f"return {card} && !{card}.innerText.includes('learning')",
                "what is usual to be known",
            )
            assert read_all(broker.bootstrap, topics.ALERTS) == []
            click(driver, "#burst")
            until(driver, "return document.querySelector('#alerts .resolved')", "the end of the incident")
    finally:
        process.terminate()
        output = output_of(process, 60)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    content = json.loads(summary.read_text())
    assert all(content["promises"].values()), output
    assert content["figures"]["alerts of the burst"] == 1
    assert content["figures"]["killed"] == "nobody"


# ------------------------------------------------------------ the detector

WATCHES = """
[[watch]]
series = "psutil-test/gauge-jobs"
sigma = 8.0
floor = 2.0
above = 900.0
for_s = 2.0
clear_s = 3.0
"""
# Seconds of the two spikes; the rest is noise. The second is above the threshold as well.
SPIKES = {range(1000, 1030): 400.0, range(2500, 2560): 1000.0}
COUNT = 4000
BEGAN_S = 1_700_000_000


def send_samples(bootstrap: str, only: range = range(COUNT)) -> None:
    """A sample a second: noise about 20, and the spikes."""
    chance = random.Random(5)
    values = [chance.gauss(20, 3) for _ in range(COUNT)]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20})
    for second in only:
        value = next((high for span, high in SPIKES.items() if second in span), values[second])
        message = samples.written("host", BEGAN_S + second, 1, {("test", "gauge", "jobs"): value})
        producer.produce(topics.SAMPLES, message, "host")
        producer.poll(0)
    assert producer.flush(30) == 0


def end_of(bootstrap: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test"})
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)[1]
    consumer.close()
    return int(end)


@contextmanager
def a_detector(bootstrap: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end of the block, if it is still there."""
    watches = directory / "watches.toml"
    watches.write_text(WATCHES)
    options = ["--bootstrap", bootstrap, "--store", str(directory / "detector.db"), "--watches", str(watches)]
    process = start("metrics", *options, module="detector")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_detector_that_is_killed_again_and_again_says_each_thing_once(
    ottla_process: Any, tmp_path: Path
) -> None:
    """The same samples make the same messages, wherever it was killed, in an incident or out of it."""
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    with a_detector(broker.bootstrap, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
    # In parts, so that each is killed with something taken up and more to come.
    parts = [range(1010), range(1010, 1015), range(1015, 2520), range(2520, COUNT)]
    for part in parts:
        send_samples(broker.bootstrap, part)
        with a_detector(broker.bootstrap, tmp_path):
            wait_until(lambda p=part: end_of(broker.bootstrap, topics.SCORES) >= p.stop - 1, 40, "the scores")  # type: ignore[misc]
    alerts = read_all(broker.bootstrap, topics.ALERTS)
    seen = [(alert["state"], (alert["at_ms"] // 1000) - BEGAN_S) for alert in alerts]
    assert seen == [("firing", 1002), ("resolved", 1033), ("firing", 2502), ("resolved", 2563)]
    ids = [alert["incident"] for alert in alerts]
    assert ids[0] == ids[1] == f"host/psutil-test/gauge-jobs@{(BEGAN_S + 1002) * 1000}"
    assert ids[2] == ids[3] != ids[0]
    assert [reason.split()[0] for reason in alerts[2]["reasons"]] == ["above", "unusual:"]
    assert alerts[3]["worst"] == 1000
    # What was scored before a kill may be scored again; nothing was left out.
    scored = {score["at_ms"] // 1000 - BEGAN_S for score in read_all(broker.bootstrap, topics.SCORES)}
    assert scored == set(range(COUNT))


def alert(number: int, state: str = "firing") -> dict[str, Any]:
    return {"incident": f"host/series@{number}", "state": state, "host": "host", "series": "s", "reasons": []}


def test_what_was_sent_before_a_crash_is_not_sent_again(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    producer = Producer({"bootstrap.servers": broker.bootstrap})

    def produce(*alerts: dict[str, Any]) -> None:
        for content in alerts:
            producer.produce(topics.ALERTS, topics.encode(content))
        assert producer.flush(20) == 0

    produce(alert(0), alert(1))
    path = tmp_path / "detector.db"
    store = Store(path)
    store.begin({0: 7, 1: 0, 2: 0, 3: 0}, 1)
    store.step({0: (10, 3)}, {("host", "s"): {"last_ms": 5}}, [alert(1), alert(2), alert(2, "resolved")])
    store.close()  # and the process died here, with the first of three sent by then

    store = Store(path)
    assert store.positions() == {0: 10, 1: 0, 2: 0, 3: 0}
    assert store.series() == {("host", "s"): {"last_ms": 5}}
    assert store.unsent(broker.bootstrap) == [alert(2), alert(2, "resolved")]
    produce(alert(2))
    assert store.unsent(broker.bootstrap) == [alert(2, "resolved")]
    assert len(store.outbox()) == 3
    store.close()

    for _ in range(2):  # the second finds nothing to send
        with a_detector(broker.bootstrap, tmp_path) as process:
            assert process.stdout is not None
            said = [process.stdout.readline()]
            while said[-1] not in ("watching\n", ""):
                said.append(process.stdout.readline())
        assert said[-1] == "watching\n", said
        alerts = read_all(broker.bootstrap, topics.ALERTS)
        assert alerts == [alert(0), alert(1), alert(2), alert(2, "resolved")]
    store = Store(path)
    assert store.outbox() == []
    store.close()


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "detector.db")
    store.begin({0: 0}, 0)
    with pytest.raises(TypeError):
        store.step({0: (5, 5)}, {("host", "series"): {"last_ms": object()}}, [])
    assert store.positions() == {0: 0}
    assert store.series() == {}
    store.step({0: (5, 5)}, {}, [])
    assert store.positions() == {0: 5}
    store.close()


# ------------------------------------------------------------ the webhook


class Webhook(http.server.BaseHTTPRequestHandler):
    """Answers with what `answers` says next, then with 204."""

    answers: list[int]
    heard: list[tuple[str, int]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.answers.pop(0) if self.answers else 204
        assert self.headers["Idempotency-Key"] == f"{body['incident']}/{body['state']}"
        self.heard.append((body["incident"].partition("@")[2], status))
        if status:
            self.send_response(status)
            self.end_headers()
        # 0: the connection is closed without an answer.

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def a_webhook(*answers: int) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    heard: list[tuple[str, int]] = []
    handler = type("Answering", (Webhook,), {"answers": list(answers), "heard": heard})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_is_told_until_it_has_taken_it(ottla_process: Any) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in (1, 2, 3):
        producer.produce(topics.ALERTS, topics.encode(alert(number)))
    producer.produce(topics.ALERTS, b"no alert")
    producer.produce(topics.ALERTS, topics.encode(alert(4)))
    assert producer.flush(20) == 0
    with a_webhook(503, 0, 429, 204, 400) as (url, heard):
        notifier = start("metrics", "--bootstrap", broker.bootstrap, "--webhook", url, module="notifier")
        try:
            wait_until(lambda: ("4", 204) in heard, 40, "the last alert")
        finally:
            notifier.terminate()
            output = output_of(notifier, 30)
        assert notifier.returncode == 0, output
        expected = [("1", 503), ("1", 0), ("1", 429), ("1", 204), ("2", 400), ("3", 204), ("4", 204)]
        assert heard == expected
        # Another one goes on behind it.
        producer.produce(topics.ALERTS, topics.encode(alert(5)))
        assert producer.flush(20) == 0
        notifier = start("metrics", "--bootstrap", broker.bootstrap, "--webhook", url, module="notifier")
        try:
            wait_until(lambda: len(heard) > len(expected), 40, "the next alert")
        finally:
            notifier.terminate()
            output_of(notifier, 30)
        assert heard == [*expected, ("5", 204)]


# ------------------------------------------------------------ incidents


class Known:
    """A scorer that knows: 10 is usual, 1 is a deviation. It says what it was given to learn."""

    def __init__(self) -> None:
        self.learnt: list[float] = []
        self.known = True

    def score(self, value: float) -> float | None:
        return abs(value - 10) if self.known else None

    def learn(self, value: float) -> None:
        self.learnt.append(value)

    def usual(self) -> tuple[float, float, float] | None:
        return (10.0, 9.0, 11.0) if self.known else None

    def forget(self) -> None:
        self.known = False

    def state(self) -> list[float]:
        return self.learnt

    def restore(self, state: list[float]) -> None:
        self.learnt = list(state)


def watched(**fields: Any) -> tuple[Series, Known]:
    scorer = Known()
    return Series("host", "name", Watch(series="*", **fields), scorer), scorer


def said(series: Series, *values: float, from_s: int = 1) -> list[tuple[str, int]]:
    """A sample a second: the messages, with the second of each."""
    messages = []
    for second, value in enumerate(values, from_s):
        taken = series.step(second * 1000, value)
        if taken is not None and taken[1] is not None:
            messages.append((taken[1]["state"], second))
    return messages


def test_an_incident_begins_after_its_time_and_is_over_after_its_time() -> None:
    series, _ = watched(above=50.0, for_s=2.0, clear_s=3.0)
    assert said(series, 1, 60, 60, 1, 60, 60, 60, 60, 1, 1, 60, 1, 1, 1, 1, 1) == [
        ("firing", 7),
        ("resolved", 15),
    ]


def test_flapping_is_one_incident() -> None:
    series, _ = watched(above=50.0, for_s=0.0, clear_s=2.0)
    assert said(series, *[60, 1] * 50, 1, 1, 1) == [("firing", 1), ("resolved", 102)]
    assert said(series, 60, from_s=200) == [("firing", 200)]


def test_below_and_above_and_unusual_are_reasons_of_one_incident() -> None:
    series, _ = watched(above=50.0, below=2.0, sigma=5.0, clear_s=1.0)
    messages = [
        series.step(second * 1000, value) for second, value in enumerate((10, 16, 60, 1, 90, 10, 10), 1)
    ]
    alerts = [message[1] for message in messages if message and message[1]]
    assert [alert["state"] for alert in alerts] == ["firing", "resolved"]
    assert alerts[0]["reasons"] == ["unusual: mostly 10"]
    assert alerts[1]["reasons"] == ["unusual: mostly 10", "above 50", "below 2"]
    assert alerts[1]["worst"] == 90
    assert alerts[0]["incident"] == alerts[1]["incident"] == "host/name@2000"


def test_the_worst_below_a_threshold_is_the_least() -> None:
    series, _ = watched(below=5.0, for_s=1.0)
    messages = [series.step(second * 1000, value) for second, value in enumerate((4.0, 1.0, 3.0, 9.0), 1)]
    assert messages[-1] is not None and messages[-1][1] is not None
    assert messages[-1][1]["worst"] == 1.0


def test_what_is_unusual_is_not_learnt_until_it_stays() -> None:
    series, scorer = watched(sigma=5.0, clear_s=1.0)
    assert said(series, 10, 99, 99, 11, 12) == [("firing", 2), ("resolved", 5)]
    assert scorer.learnt == [10, 11, 12]
    hour = [99.0] * (incidents.ADOPT_MS // 1000 + 5)
    assert said(series, *hour, from_s=10) == [("firing", 10), ("resolved", 10 + incidents.ADOPT_MS // 1000)]
    assert not scorer.known


def test_nothing_is_unusual_while_nothing_is_known() -> None:
    series, scorer = watched(sigma=5.0, above=1000.0)
    scorer.known = False
    assert said(series, 1, 500, 900) == []
    assert scorer.learnt == [1, 500, 900]
    assert said(series, 1001, from_s=10) == [("firing", 10)], "a threshold needs no knowledge"


def test_a_sample_that_is_not_younger_is_passed_over() -> None:
    series, _ = watched(above=50.0)
    assert said(series, 60, from_s=10) == [("firing", 10)]
    for at_ms in (10_000, 9_000):
        assert series.step(at_ms, 1.0) is None
    assert series.firing


def test_a_series_goes_on_where_another_was() -> None:
    values = [10, 99, 99, 99, 10, 99, 10, 10, 10, 10, 99, 99, 99, 10, 10, 10]
    for cut in range(len(values)):
        whole, _ = watched(sigma=5.0, for_s=1.0, clear_s=2.0)
        first, _ = watched(sigma=5.0, for_s=1.0, clear_s=2.0)
        second, _ = watched(sigma=5.0, for_s=1.0, clear_s=2.0)
        wanted = said(whole, *values)
        got = said(first, *values[:cut])
        second.restore(json.loads(json.dumps(first.saved())))
        got += said(second, *values[cut:], from_s=cut + 1)
        assert got == wanted
        assert second.saved() == whole.saved()
        assert len(wanted) == 4


def test_the_watches_that_are_shipped_can_be_read() -> None:
    shipped = incidents.watches()
    assert {watch.series for watch in shipped if watch.sigma is not None} >= {"filecount-spool/files"}
    assert any(watch.matches("df-root/percent_bytes-free") for watch in shipped)


def test_what_is_usual_is_robust_and_can_be_saved() -> None:
    """In the example's own environment: river is nowhere else."""
    program = """
import json, random
from examples.metrics.usual import RiverScorer, WARM_UP
chance = random.Random(3)
scorer = RiverScorer(0.5)
early = [scorer.score(v) or scorer.learn(v) for v in [20.0] * (WARM_UP - 1)]
flat = RiverScorer(0.5)
for _ in range(50): flat.learn(20.0)
for n in range(400): scorer.learn(chance.gauss(20, 2) if n % 20 else 500.0)
again = RiverScorer(0.5)
again.restore(json.loads(json.dumps(scorer.state())))
print(json.dumps({"early": early, "flat": flat.score(21.0), "usual": scorer.usual(),
    "high": scorer.score(60.0), "normal": max(scorer.score(v) for v in (16.0, 20.0, 24.0)),
    "same": again.usual() == scorer.usual()}))
"""
    command = [python_of("metrics"), "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert set(found["early"]) == {None}
    assert found["flat"] == pytest.approx(1.0), "five per cent of the median, where nothing moves"
    assert 19 < found["usual"][0] < 21, "one wild value in twenty moves the median little"
    assert found["high"] > 10
    assert found["normal"] < 4
    assert found["same"]


# ------------------------------------------------------------ samples


def test_collectds_own_messages_are_read() -> None:
    message = (
        b'[{"values":[0.5,0.25,0.125],"dstypes":["gauge","gauge","gauge"],'
        b'"dsnames":["shortterm","midterm","longterm"],"time":1795670236.677,"interval":0.500,"host":"vm",'
        b'"plugin":"load","plugin_instance":"","type":"load","type_instance":""},'
        b'{"values":[27.5],"dstypes":["gauge"],"dsnames":["value"],"time":1795670236.678,"interval":0.500,'
        b'"host":"vm","plugin":"df","plugin_instance":"root","type":"percent_bytes","type_instance":"free"},'
        b'{"values":[null,7],"dstypes":["derive","derive"],"dsnames":["rx","tx"],"time":1795670236.678,'
        b'"interval":0.5,"host":"vm","plugin":"interface","plugin_instance":"lo","type":"if_octets",'
        b'"type_instance":"","meta":{"network:received":true}}]'
    )
    assert [(r.host, r.series, r.at_ms, r.value) for r in samples.read(message)] == [
        ("vm", "load/load/shortterm", 1795670236677, 0.5),
        ("vm", "load/load/midterm", 1795670236677, 0.25),
        ("vm", "load/load/longterm", 1795670236677, 0.125),
        ("vm", "df-root/percent_bytes-free", 1795670236678, 27.5),
        ("vm", "interface-lo/if_octets/tx", 1795670236678, 7.0),
    ]


def test_what_is_no_sample_is_passed_over() -> None:
    good = json.loads(samples.written("h", 5.0, 1.0, {("a", "gauge", "b"): 1.0}))[0]
    assert [r.series for r in samples.read(json.dumps(good).encode())] == ["psutil-a/gauge-b"]
    for wrong in (None, b"", b"\xff", b"5", b"[5]", b"null", b"[null]", b'{"host": "h"}'):
        assert samples.read(wrong) == []
    for field, value in (
        ("time", "soon"),
        ("time", 1e400),
        ("values", 5),
        ("values", ["x"]),
        ("values", [True]),
    ):
        assert samples.read(json.dumps([{**good, field: value}]).encode()) == [], (field, value)
    assert (
        samples.read(
            b"[" + b",".join([json.dumps({**good, "values": [float("nan")]}).encode(), b"{}"]) + b"]"
        )
        == []
    )
    many = json.dumps([good] * 5000).encode()
    assert len(samples.read(many)) == samples.READINGS_PER_MESSAGE_MAX
