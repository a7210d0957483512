"""What commands say that librdkafka lets in nowhere: why, and soon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from measuring import at_most
from ottla.broker.audit import AUDIT
from ottla.cli.app import run
from ottla.cli.client import connect
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.testing import Acl, Broker


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sasl.password": "wrong"}, "the login was refused: Authentication failed"),
        ({"ssl.ca.location": None}, "TLS: SSL handshake failed: .*certificate verify failed"),
    ],
    ids=["password", "authority"],
)
def test_why_a_client_is_refused_is_told_soon(given: dict[str, str | None], told: str) -> None:
    with Broker(tls=True, users={"alice": "secret"}) as broker:
        properties = {**broker.client_properties("alice"), **given}
        bootstrap = str(properties.pop("bootstrap.servers"))
        pairs = [f"{name}={value}" for name, value in properties.items() if value is not None]
        for attempt in at_most(3.5, "s"):
            with attempt.wall(), pytest.raises(CliError, match=f"^{bootstrap}: {told}") as caught:
                connect(bootstrap, pairs)
    assert caught.value.code is ExitCode.UNREACHABLE
    assert "after" not in str(caught.value)


def test_a_login_at_a_listener_without_sasl_is_told_in_the_words_of_the_properties() -> None:
    login = ["sasl.mechanism=PLAIN", "sasl.username=a", "sasl.password=b"]
    with (
        Broker() as broker,
        pytest.raises(CliError, match="this listener has no login by SASL; set security") as caught,
    ):
        connect(broker.bootstrap_servers, ["security.protocol=SASL_PLAINTEXT", *login])
    assert caught.value.code is ExitCode.UNREACHABLE


def test_who_speaks_no_tls_where_it_is_asked_for_is_told_what_to_look_at() -> None:
    with (
        Broker(tls=True) as broker,
        pytest.raises(CliError, match=r"does it ask for TLS, or a login\?\); check the port"),
    ):
        connect(broker.bootstrap_servers, [])


def test_a_missing_right_is_told_with_where_to_find_it() -> None:
    with Broker(topics=["orders"], users={"alice": "secret"}, acls=[]) as broker:
        properties = broker.client_properties("alice")
        bootstrap = str(properties.pop("bootstrap.servers"))
        cluster = connect(bootstrap, [f"{name}={value}" for name, value in properties.items()])
        with pytest.raises(CliError, match="topic 'orders' does not exist, or may not be seen by this user"):
            cluster.topic("orders")
        with pytest.raises(CliError, match="'ottla acl add' gives it"):
            cluster.wait(cluster.admin.delete_topics(["orders"])["orders"], "topic 'orders'")


class Refused(logging.Handler):
    """Calls somebody when a client was refused a group for the first time."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then: Callable[[], object] | None = then

    def emit(self, record: logging.LogRecord) -> None:
        if "FindCoordinator" in record.getMessage() and self._then is not None:
            then, self._then = self._then, None
            threading.Thread(target=then).start()


def test_reading_without_a_group_takes_the_right_to_the_topic_alone(
    capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    may = [Acl("alice", "read", topic="orders")]
    with Broker(topics=["orders"], users={"alice": "secret"}, acls=may) as broker:
        properties = broker.client_properties("alice")
        bootstrap = str(properties.pop("bootstrap.servers"))
        pairs = [word for name, value in properties.items() for word in ("-X", f"{name}={value}")]
        words = ["consume", "orders", "--follow", "--max", "1", "--bootstrap", bootstrap, *pairs]
        caplog.set_level(logging.INFO, AUDIT.name)
        refused = Refused(lambda: broker.produce("orders", "paid"))
        AUDIT.addHandler(refused)
        try:
            assert run(words) == ExitCode.OK
        finally:
            AUDIT.removeHandler(refused)
        assert capfdbinary.readouterr().out == b"paid\n"
        with pytest.raises(CliError) as caught:
            run([*words, "--group", "readers"])
    assert str(caught.value).startswith("group 'readers': ")
    assert "'ottla acl add USER --operation read --group readers' gives it" in str(caught.value)


def test_what_is_asked_without_librdkafka_tells_the_same() -> None:
    with Broker(tls=True, users={"alice": "secret"}, acls=[]) as broker:
        properties = broker.client_properties("alice")
        bootstrap = str(properties.pop("bootstrap.servers"))
        pairs = [f"{name}={value}" for name, value in properties.items()]
        cluster = DirectCluster(bootstrap, pairs)
        answer = cluster.ask("DescribeUserScramCredentials", {"users": None})
        with pytest.raises(CliError, match=r"^users: Cluster authorization failed \(the user lacks a right"):
            check(answer.error_code, answer.error_message, "users")
        cluster.close()
        untrusting = [pair for pair in pairs if not pair.startswith("ssl.ca.location")]
        with pytest.raises(CliError, match="its certificate is not to be trusted: ") as caught:
            DirectCluster(bootstrap, untrusting).ask("DescribeUserScramCredentials", {"users": None})
        assert "_ssl.c" not in str(caught.value)
