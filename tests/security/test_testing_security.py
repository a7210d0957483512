"""``ottla.testing.Broker`` with TLS, users and ACLs."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Producer

from measuring import HANG_S
from ottla.testing import Acl, Broker, Cluster

QUIET = {"log_level": 0}


def send(properties: dict[str, str], topic: str = "t") -> KafkaError | None:
    """Produce a message; why that failed."""
    outcomes: list[KafkaError | None] = []
    producer = Producer({**properties, **QUIET})
    producer.produce(topic, b"x", on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(HANG_S) == 0
    return outcomes[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_users_log_in_over_tls(mechanism: str) -> None:
    with Broker(tls=True, users={"alice": 'won"der\\land', "bob, or=so": "b"}) as broker:
        for user in ("alice", "bob, or=so"):
            assert send(broker.client_properties(user, mechanism)) is None
        with pytest.raises(ValueError, match="give one of 'alice'"):
            broker.client_properties("carol")
        broker.restart()
        assert send(broker.client_properties("alice", mechanism)) is None


def test_certificates_name_users() -> None:
    with Broker(tls=True, acls=[Acl("alice", "all", topic="*")], topics=["t"]) as broker:
        assert send(broker.client_properties("alice")) is None
        refused = send(broker.client_properties())
        assert refused is not None and refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_users_may_do_what_acls_say() -> None:
    acls = [
        Acl("alice", "write", topic="team-", prefixed=True),
        Acl("User:alice", "write", topic="team-secret", deny=True),
    ]
    users = {"alice": "a", "bob": "b"}
    with Broker(topics=["team-a", "team-secret"], users=users, acls=acls) as broker:
        assert send(broker.client_properties("alice"), "team-a") is None
        for user, topic in (("alice", "team-secret"), ("bob", "team-a")):
            refused = send(broker.client_properties(user), topic)
            assert refused is not None and refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(("tls", "users"), [(True, {"alice": "a"}), (False, {"alice": "a"}), (True, None)])
def test_nodes_of_a_cluster_know_each_other_and_their_users(tls: bool, users: dict[str, str] | None) -> None:
    acls = [Acl("alice", "write", topic="t")]
    with Cluster(2, topics=["t"], tls=tls, users=users, acls=acls) as cluster:
        cluster.wait_for_isr("t")
        alice = cluster.client_properties("alice")
        assert send(alice | {"acks": "all"}) is None
        refused = send(alice, "other")
        assert refused is not None and refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        leader = cluster.leader("t")
        cluster.kill(leader)
        cluster.wait_for_leader("t", other_than=leader)
        assert send(alice | {"acks": "1"}) is None
        cluster.start(leader)
        cluster.wait_for_isr("t")
        assert [one.value for one in cluster.records("t")] == [b"x", b"x"]
        strangers = cluster.client_properties() if users is None else {}
        if strangers:
            assert send(strangers) is not None


def test_acls_of_a_cluster_need_names_of_its_nodes() -> None:
    with pytest.raises(ValueError, match="acls: give users or tls"):
        Cluster(2, acls=[])


@pytest.mark.parametrize("acl", [Acl("alice", "reed", topic="t"), Acl("alice", "read", topic="t", group="g")])
def test_an_acl_that_cannot_be_is_refused_at_once(acl: Acl) -> None:
    with pytest.raises(ValueError, match="Acl"):
        Broker(acls=[acl])
