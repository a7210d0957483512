"""What commands say that librdkafka lets in nowhere: why, and soon."""

from __future__ import annotations

import pytest

from measuring import at_most
from ottla.cli.client import connect
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.testing import Broker


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
