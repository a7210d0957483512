"""The shop: what visitors who agree do is in the topic and on the page, what others do is nowhere."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, TopicPartition
from examples_browser import a_browser, click, text_of, until, write
from examples_support import output_of, picture_of, run_example, start
from selenium import webdriver

from examples.activity import topics
from examples.activity.counts import Counts
from examples.activity.limits import Limits
from examples.activity.visitors import leftovers
from interop.process import BrokerProcess, wait_until
from measuring import at_most

PERSONAL = ("Ada Byron", "ada@example.org", "Analytical Lane 1")


def read_all(bootstrap: str) -> list[bytes]:
    """The value of every event in the topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    at = [TopicPartition(topics.TOPIC, p, 0) for p in range(topics.PARTITIONS)]
    count = sum(consumer.get_watermark_offsets(partition, timeout=60)[1] for partition in at)
    consumer.assign(at)
    messages: list[Any] = []
    deadline = time.monotonic() + 60
    while len(messages) < count:
        assert time.monotonic() < deadline
        messages += consumer.consume(count - len(messages), 0.5)
    consumer.close()
    assert all(message.error() is None for message in messages)
    return [message.value() for message in messages]


# ------------------------------------------------------------ all of it


def test_what_visitors_do_is_in_the_topic_and_on_the_page(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    picture = picture_of("activity", "png")
    picture.unlink(missing_ok=True)
    arguments = ["--port", "0", "--dashboard-port", "0", "--seconds", "15", "--seed", "11"]
    arguments += ["--picture", str(picture)]
    run = run_example("activity", broker.bootstrap, tmp_path, *arguments, timeout_s=100)
    assert run.figures["visitors who agreed"] > 0
    assert run.figures["view"] > 0
    assert run.figures["other sessions"] == 0
    sessions = {json.loads(value)["session"] for value in read_all(broker.bootstrap)}
    assert len(sessions) == run.figures["visitors who agreed"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def visit(driver: webdriver.Chrome) -> Counter[str]:
    """Look around, search, buy, subscribe; the events that this makes for those who agreed."""

    def see(page: str) -> None:
        shown = f"return document.querySelector('main').dataset.page === '{page}'"
        until(driver, shown, f"the page: {page}")

    write(driver, "#search input", f"lamp {PERSONAL[1]}\n")
    see("search")
    for selector, page in (
        (".brand", "home"),
        ('.card[href="#/product/lamp"]', "product"),
        ("#add", "product"),
        ("#add", "product"),
        (".then", "cart"),
        ("#to-checkout", "checkout"),
    ):
        click(driver, selector)
        see(page)
    for name, text in zip(("name", "email", "address"), PERSONAL, strict=True):
        write(driver, f".order [name={name}]", text)
    click(driver, ".order button")
    see("thanks")
    write(driver, "#letter", PERSONAL[1])
    click(driver, ".newsletter button")
    return Counter(view=6, click=8, search=1, product=1, cart=2, checkout=1, form=2)


def test_a_visitor_is_counted_with_consent_and_never_without(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    arguments = ["--bootstrap", broker.bootstrap, "--visitors", "0", "--port", "0", "--dashboard-port", "0"]
    summary = tmp_path / "summary.json"
    process = start("activity", *arguments, "--summary", str(summary))
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.match(r"the shop: (\S+) +live counts: (\S+)", first)
        assert found, first
        shop, dashboard = found.groups()
        with a_browser() as driver:
            driver.get(shop)
            until(driver, "return document.body.dataset.ready", "the shop")
            # The question is not answered yet, and then with no.
            click(driver, '.card[href="#/product/mug"]')
            assert leftovers(driver) == []
            click(driver, "#decline")
            until(driver, "return document.body.dataset.consent", "the answer to be taken")
            visit(driver)
            assert leftovers(driver) == []
            assert read_all(broker.bootstrap) == []

            driver.get(f"{shop}/?again")
            until(driver, "return document.body.dataset.ready", "the shop")
            click(driver, "#accept")
            until(driver, "return document.body.dataset.consent", "the answer to be taken")
            cookie = driver.get_cookie("session")
            assert cookie is not None
            assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
            wanted = visit(driver) + Counter(view=1)
            # Gone with what it has not sent yet: the browser delivers it.
            driver.get(dashboard)
            wait_until(lambda: len(read_all(broker.bootstrap)) >= wanted.total(), 30, "the events")
            events = [json.loads(value) for value in read_all(broker.bootstrap)]
            assert Counter(event["type"] for event in events) == wanted
            assert {event["session"] for event in events} == {cookie["value"]}
            assert len({event["id"] for event in events}) == len(events)
            everything = b"\n".join(read_all(broker.bootstrap)).decode()
            assert not [text for text in PERSONAL if text.lower() in everything.lower()]
            assert [e["query"] for e in events if e["type"] == "search"] == ["lamp …"]

            until(driver, "return document.querySelector('#orders').innerText === '1'", "the order's count")
            stages = [text_of(driver, f'#funnel [data-stage="{stage}"] b') for stage in topics.STAGES]
            assert stages == ["1"] * len(topics.STAGES)
            assert text_of(driver, "#here") == "1"
            assert text_of(driver, "#carts") == "2"
            assert "lamp" in text_of(driver, "#products")
            assert "found nothing" in text_of(driver, "#queries")

            # Consent holds for the next page, until it is taken back.
            driver.get(shop)
            until(driver, "return document.body.dataset.consent === 'granted'", "the consent")
            until(driver, "return window.activity.pending() === 0", "the events to be sent")
            click(driver, "#privacy")
            click(driver, "#decline")
            until(driver, "return document.body.dataset.consent === 'declined'", "the answer to be taken")
            assert driver.get_cookies() == []
            click(driver, '.card[href="#/product/mug"]')
            assert driver.execute_script("return window.activity.pending()") == 0
            driver.get("about:blank")
        assert len(read_all(broker.bootstrap)) == wanted.total() + 1
    finally:
        process.send_signal(signal.SIGINT)
        output = output_of(process, 60)
    assert process.returncode == 0, output
    assert json.loads(summary.read_text())["figures"]["other sessions"] == 1


# ------------------------------------------------------------ the collector


class Client:
    """A browser's requests without the browser."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self.cookies: dict[str, str] = {}

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        """Status, JSON and headers of the answer. `body` is bytes, a generator of them, or becomes JSON."""
        connection = http.client.HTTPConnection(self._host, timeout=60)
        content = json.dumps(body).encode() if isinstance(body, dict | list) else body
        sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        text = answer.read()
        for cookie in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        connection.close()
        return answer.status, json.loads(text) if text else {}, answer.headers

    def agree(self) -> None:
        assert self.request("POST", "/consent", {"granted": True})[0] == 200

    def send(self, *events: dict[str, Any], **headers: str) -> int:
        return self.request("POST", "/events", {"events": list(events)}, **headers)[0]


def an_event(**fields: Any) -> dict[str, Any]:
    return {"type": "view", "id": str(uuid.uuid4()), "at_ms": 1, "page": "/", **fields}


@contextmanager
def a_collector(
    bootstrap: str, directory: Path, *arguments: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A collector on a free port; the test fails if it does not end well."""
    ready = directory / "collector.url"
    options = ["--bootstrap", bootstrap, "--listen", "127.0.0.1:0", "--ready", str(ready)]
    options += ["--report", str(directory / "report.json")]
    process = start("activity", *options, *arguments, module="collector")
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, 60, "the collector")
        yield ready.read_text(), process
    finally:
        process.terminate()
        output = output_of(process, 60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_the_collector_takes_events_and_nothing_else(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    with a_collector(broker.bootstrap, tmp_path) as (url, _):
        client = Client(url)
        assert client.send(an_event()) == 403
        assert client.cookies == {}
        assert client.request("GET", "/consent")[1] == {"granted": False}
        assert client.request("POST", "/consent", {"granted": True}, Origin="http://elsewhere")[0] == 403
        client.agree()
        assert client.request("GET", "/consent")[1] == {"granted": True}
        assert client.send(an_event(), Sec_GPC="1") == 403
        assert client.send(an_event(), Origin="http://elsewhere.example") == 403

        for wrong in (
            an_event(type="purchase"),
            an_event(email="ada@example.org"),
            an_event(page="javascript:alert(1)"),
            an_event(at_ms=-1),
            an_event(id="x"),
            an_event(type="cart", product="mug", quantity=0),
            an_event(type="search", query="x" * 81, results=1),
            an_event(type="form", form="order", fields=3, content={"name": "Ada"}),
        ):
            # One event that is none refuses the batch.
            assert client.send(an_event(), wrong) == 400, wrong
        for body in (b"", b"{", b"[]", b'{"events": []}', b"\xff", {"events": [an_event()] * 101}):
            assert client.request("POST", "/events", body)[0] == 400, body
        assert client.request("POST", "/events", b"{}", Content_Type="text/plain")[0] == 415
        large = b'{"events": "' + b"x" * 70_000 + b'"}'
        assert client.request("POST", "/events", large)[0] == 413
        # No length is said before: it is measured as it comes.
        parts = (large[at : at + 1000] for at in range(0, len(large), 1000))
        assert client.request("POST", "/events", parts)[0] == 413
        assert read_all(broker.bootstrap) == []

        session = client.cookies["session"]
        sent = [an_event(), an_event(type="search", query=" Lamp 4111 1111 1111 1111 ", results=2)]
        assert client.send(*sent) == 204
        kept = [json.loads(value) for value in read_all(broker.bootstrap)]
        assert [event["id"] for event in kept] == [event["id"] for event in sent]
        assert {event["session"] for event in kept} == {session}
        assert kept[1]["query"] == "lamp …"
        # A session that the collector did not give is not taken.
        client.cookies["session"] = "mine"
        assert client.send(an_event()) == 204
        assert client.cookies["session"] not in ("mine", session)
        assert "Cart" in json.dumps(client.request("GET", "/schema")[1])

        # Of 300 that a session may send at once, one was sent. The bucket fills in 15 s.
        assert [client.send(*(an_event() for _ in range(99))) for _ in range(3)] == [204] * 3
        status, _, headers = client.request("POST", "/events", {"events": [an_event()] * 100})
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 5
        # Another session is not held up by this one.
        other = Client(url)
        other.agree()
        assert other.send(an_event()) == 204


def test_a_broker_that_stands_still_pushes_back_and_loses_nothing(ottla_process: Any, tmp_path: Path) -> None:
    """What is answered with 204 is in the topic. What does not fit is refused at once, not queued."""
    broker: BrokerProcess = ottla_process()
    with a_collector(broker.bootstrap, tmp_path, "--waiting-max", "30") as (url, process):
        client = Client(url)
        client.agree()
        assert client.send(an_event()) == 204
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(4) as threads:
                held = [threads.submit(client.send, *(an_event() for _ in range(10))) for _ in range(3)]
                wait_until(lambda: client.request("GET", "/health")[1]["waiting"] == 30, 30, "a full queue")
                # Else it waits for 5 s, though there is no room.
                for attempt in at_most(4.0, "s", attempts=2):
                    with attempt.wall():
                        status, _, headers = client.request("POST", "/events", {"events": [an_event()]})
                    assert status == 503
                    assert int(headers["Retry-After"]) >= 1
                # Nobody is kept for ever.
                assert [future.result(60) for future in held] == [503] * 3
        finally:
            broker.process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.send(an_event()) == 204, 30, "the broker to be back", pause_s=0.2)

        # The end: the batch that is under way is finished, and its sender told so.
        broker.process.send_signal(signal.SIGSTOP)
        last = [an_event() for _ in range(5)]
        try:
            with ThreadPoolExecutor(1) as threads:
                answer = threads.submit(client.send, *last)
                wait_until(lambda: client.request("GET", "/health")[1]["waiting"] == 5, 30, "the batch")
                process.terminate()
                with pytest.raises(ConnectionError):
                    wait_until(lambda: not client.request("GET", "/health"), 10, "a closed door")
                broker.process.send_signal(signal.SIGCONT)
                assert answer.result(60) == 204
        finally:
            broker.process.send_signal(signal.SIGCONT)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["lost"] == 0
    assert report["waiting"] == 0
    kept = [json.loads(value)["id"] for value in read_all(broker.bootstrap)]
    assert {event["id"] for event in last} <= set(kept)
    # Those whose sender was told 503 got there all the same; no event is there twice for that.
    assert len(kept) == len(set(kept)) == report["accepted"] + 30


def test_what_still_waits_at_the_end_is_sent(ottla_process: Any, tmp_path: Path) -> None:
    """Nobody waits for an answer any more, but the collector took it, and sends it before it ends."""
    broker: BrokerProcess = ottla_process()
    with a_collector(broker.bootstrap, tmp_path) as (url, process):
        client = Client(url)
        client.agree()
        assert client.send(an_event()) == 204
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        late = [an_event() for _ in range(5)]
        try:
            assert client.send(*late) == 503
            process.terminate()
            with pytest.raises(ConnectionError):
                wait_until(lambda: not client.request("GET", "/health"), 10, "a closed door")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)  # it does not end with events in its hands
        finally:
            broker.process.send_signal(signal.SIGCONT)
        process.wait(60)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["lost"], report["waiting"], report["accepted"]) == (0, 0, 1)
    kept = [json.loads(value)["id"] for value in read_all(broker.bootstrap)]
    assert sorted(kept[-5:]) == sorted(event["id"] for event in late)
    assert len(kept) == 6


def test_the_page_sends_again_what_was_not_taken(ottla_process: Any, tmp_path: Path) -> None:
    """The broker is away while somebody looks around; the same events come when it is back."""
    broker: BrokerProcess = ottla_process()
    with a_collector(broker.bootstrap, tmp_path) as (url, _), a_browser() as driver:
        driver.get(url)
        until(driver, "return document.body.dataset.ready", "the shop")
        click(driver, "#accept")
        until(driver, "return document.body.dataset.consent && window.activity.pending() === 0", "the first")
        before = len(read_all(broker.bootstrap))
        broker.kill()
        click(driver, '.card[href="#/product/mug"]')
        wait_until(lambda: Client(url).request("GET", "/health")[1]["answered"].get("503"), 30, "a refusal")
        click(driver, "#add")
        assert driver.execute_script("return window.activity.pending()") == 5
        broker.start()
        until(driver, "return window.activity.pending() === 0", "what waited to be sent")
        assert driver.execute_script("return window.activity.dropped") == 0
    counts = Counts()
    for value in read_all(broker.bootstrap):
        event = topics.from_record(value)
        assert event is not None
        counts.add(event, 1_700_000_000_000)
    # A batch whose sender heard nothing may be there twice: it is counted once.
    assert before == 1
    assert {kind: n for kind, n in counts.totals.items() if n} == {
        "view": 2,
        "product": 1,
        "click": 2,
        "cart": 1,
    }


# ------------------------------------------------------------ the counts


def counted(*events: tuple[str, str, int], window_ms: int = 10_000) -> Counts:
    """Counts of events: session, type, and when."""
    counts = Counts(window_ms)
    for number, (session, kind, at_ms) in enumerate(events):
        form = {"form": "order"} if kind == "form" else {}
        counts.add({"id": str(number), "session": session, "type": kind, **form}, at_ms)
    return counts


def test_a_funnel_counts_stages_in_their_order() -> None:
    counts = counted(
        *(("a", kind, 1000) for kind in ("view", "product", "cart", "checkout", "form", "view")),
        *(("b", kind, 1000) for kind in ("cart", "view", "cart", "product")),
        *(("c", kind, 1000) for kind in ("click", "view")),
        ("d", "click", 1000),
    )
    assert counts.funnel() == [("view", 3), ("product", 2), ("cart", 1), ("checkout", 1), ("order", 1)]
    assert counts.snapshot(2000)["sessions"] == 4


def test_an_event_that_comes_twice_is_counted_once() -> None:
    counts = Counts()
    for session, event in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")):
        counts.add({"id": event, "session": session, "type": "view"}, 5000)
    assert counts.totals["view"] == 3
    assert counts.again == 2


def test_quiet_sessions_leave_the_funnel_and_stay_in_the_totals() -> None:
    counts = counted(("a", "view", 1000), ("b", "view", 2000), ("a", "product", 9000))
    snapshot = counts.snapshot(12_500)
    assert dict(snapshot["funnel"])["view"] == 1
    assert snapshot["sessions"] == 1
    assert snapshot["totals"]["view"] == 2
    assert counts.snapshot(20_000)["sessions"] == 0


def test_counts_of_a_second_and_a_minute() -> None:
    counts = counted(
        ("a", "view", 90_000),
        ("a", "click", 110_000),
        ("a", "click", 110_900),
        ("b", "view", 159_999),
        window_ms=100_000,
    )
    snapshot = counts.snapshot(160_500)
    # The second that is not over yet is not shown; the first of the minute is.
    assert snapshot["per_second"]["view"] == [0] * 59 + [1]
    assert snapshot["per_second"]["click"][10] == 2
    assert snapshot["per_minute"] == 3
    assert snapshot["here"] == 2
    assert counts.snapshot(172_000)["here"] == 1


def test_a_flood_of_names_and_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.activity.counts.NAMES_MAX", 20)
    monkeypatch.setattr("examples.activity.counts.SESSIONS_MAX", 50)
    counts = Counts()
    for number in range(500):
        event = {"id": "1", "session": str(number), "type": "search", "query": f"q{number}", "results": 0}
        counts.add(event, number)
        counts.add({**event, "id": "2", "query": "lamp"}, number)
    assert counts.snapshot(600)["sessions"] == 50
    assert counts.snapshot(600)["searches"][0] == {"query": "lamp", "count": 500, "found": 0}
    assert len(counts._searched) <= 20
    assert len(counts._found) <= 41


def test_what_is_no_event_is_passed_over() -> None:
    assert topics.from_record(None) is None
    assert topics.from_record(b"\xff") is None
    assert topics.from_record(b"[1]") is None
    assert topics.from_record(b'{"id": "1", "type": "view"}') is None
    assert topics.from_record(b'{"id": "1", "type": "view", "session": "s"}') is not None


def test_a_session_gets_its_tokens_back_with_time() -> None:
    limits = Limits(per_s=10, burst=20, sessions_max=2)
    assert limits.wait_s("a", 20, 0.0) == 0
    assert limits.wait_s("a", 5, 0.0) == pytest.approx(0.5)
    assert limits.wait_s("a", 5, 0.4) == pytest.approx(0.1)
    assert limits.wait_s("a", 5, 0.5) == 0
    assert limits.wait_s("b", 50, 1.0) == 0, "a batch larger than the bucket would never pass"
    assert limits.wait_s("c", 1, 1.0) == 0
    assert limits.wait_s("a", 20, 1.0) == 0, "the oldest is forgotten when there are too many"
