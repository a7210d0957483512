"""What single listeners are set to, and which of them nodes use among themselves."""

from __future__ import annotations

import pytest

from ottla.config import BrokerConfig, ConfigError, check_known
from ottla.config.exposure import exposed


def test_a_listener_s_own_value_goes_before_that_of_all() -> None:
    config = BrokerConfig(
        {
            "max.connections": "7",
            "listener.name.inner.max.connections": "3",
            "listener.name.sasl_ssl.scram-sha-512.connections.max.reauth.ms": "5000",
            "connections.max.reauth.ms": "9000",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": "x required;",
            "listeners": "INNER://:1,SASL_SSL://:2",
            "listener.security.protocol.map": "INNER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "INNER",
        }
    )
    assert config.warnings == []
    assert config.for_listener("INNER").get("max.connections") == 3
    assert config.for_listener("OUTER").get("max.connections") == 7
    outer = config.for_listener("SASL_SSL")
    assert outer.of_mechanism("SCRAM-SHA-512", "connections.max.reauth.ms") == 5000
    assert outer.of_mechanism("PLAIN", "connections.max.reauth.ms") == 9000
    assert outer.of_mechanism("PLAIN", "sasl.jaas.config") == "x required;"
    assert outer.of_mechanism("SCRAM-SHA-512", "sasl.jaas.config") is None


def test_a_node_s_dynamic_value_goes_before_all_nodes_and_that_before_the_static_one() -> None:
    name = "listener.name.inner.max.connections"
    config = BrokerConfig({name: "1"})
    settings = config.for_listener("INNER")
    heard: list[frozenset[str]] = []
    config.subscribe(heard.append)
    assert config.update_dynamic({name: "2"}, {}) == {name}
    assert settings.get("max.connections") == 2
    config.update_dynamic({name: "2"}, {name: "3"})
    assert settings.get("max.connections") == 3
    config.update_dynamic({}, {})
    assert settings.get("max.connections") == 1
    assert heard == [frozenset({name})] * 3
    assert settings.changed(frozenset({name})) == {"max.connections"}
    assert config.for_listener("OTHER").changed(frozenset({name, "max.connections"})) == {"max.connections"}


@pytest.mark.parametrize(
    "given",
    [
        {"listener.name.inner.max.connections": "many"},
        {"listener.name.inner.plain.connections.max.reauth.ms": "soon"},
    ],
)
def test_a_listener_s_own_value_must_be_valid(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=name):
        BrokerConfig(given)
    with pytest.raises(ConfigError, match=name):
        BrokerConfig().check_dynamic(given, per_broker=True)


def test_what_is_no_listener_s_is_warned_about_and_what_cannot_be_is_refused() -> None:
    (warning,) = BrokerConfig({"listener.name.plaintext.max.connections.per.ip": "5"}).warnings
    assert "max.connections.per.ip is the same for all listeners" in warning
    assert BrokerConfig({"listener.name.plaintext.ottla.users.file": "/etc/users"}).warnings == []
    given = {"listener.name.a.principal.builder.class": "org.example.Builder"}
    with pytest.raises(ConfigError, match=r"a\.principal\.builder\.class: not supported here: Java"):
        BrokerConfig(given)
    with pytest.raises(ConfigError, match="not supported here"):
        BrokerConfig().check_dynamic(given, per_broker=True)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("listener.name.plain.ottla.users.file", "there is no listener PLAIN in listeners"),
        ("listener.name.PLAINTEXT.ottla.users.file", "write listener.name.plaintext, in small letters"),
        ("listener.name.plaintext.ottla.users.file", ""),
        ("listener.name.controllers.ottla.users.file", ""),
    ],
)
def test_what_is_set_for_a_listener_that_is_none_is_warned_about(name: str, told: str) -> None:
    config = BrokerConfig({name: "/etc/users", "controller.listener.names": "CONTROLLERS"})
    assert config.warnings == ([f"{name} has no effect: {told}"] if told else [])


def test_names_of_listeners_settings_are_known() -> None:
    check_known(["listener.name.a.max.connections", "listener.name.a.gssapi.sasl.jaas.config"])
    for name in ("listener.name.a.gssapi.max.connections", "listener.name.a.nothing", "listener.name.a"):
        with pytest.raises(ConfigError):
            check_known([name])
        assert BrokerConfig({name: "1"}).warnings == [
            f"The configuration '{name}' was supplied but isn't a known config."
        ]


TWO = {
    "listeners": "PLAINTEXT://:1,INNER://:2",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT",
}


@pytest.mark.parametrize(
    ("given", "listener"),
    [
        ({}, "PLAINTEXT"),
        ({"inter.broker.listener.name": "inner"}, "INNER"),
        ({"security.inter.broker.protocol": "PLAINTEXT"}, "PLAINTEXT"),
    ],
)
def test_which_listener_nodes_use_among_themselves(given: dict[str, str], listener: str) -> None:
    assert BrokerConfig(TWO | given).inter_broker_listener == listener


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        (
            {"inter.broker.listener.name": "INNER", "security.inter.broker.protocol": "PLAINTEXT"},
            "Only one of inter.broker.listener.name and security.inter.broker.protocol",
        ),
        ({"inter.broker.listener.name": "OUTER"}, "none is called OUTER"),
        ({"security.inter.broker.protocol": "SSL"}, "none is called SSL"),
    ],
)
def test_nodes_need_a_listener_that_is_there(given: dict[str, str], refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        BrokerConfig(TWO | given)


@pytest.mark.parametrize(
    ("listeners", "more", "expected"),
    [
        ("PLAINTEXT://127.0.0.1:9092", {}, []),
        ("PLAINTEXT://localhost:9092,A://[::1]:1", {}, []),
        ("PLAINTEXT://0.0.0.0:9092", {}, ["PLAINTEXT://0.0.0.0:9092"]),
        ("PLAINTEXT://:9092", {}, ["PLAINTEXT://:9092"]),
        ("A://10.0.0.1:1,PLAINTEXT://[::]:2", {}, ["A://10.0.0.1:1", "PLAINTEXT://[::]:2"]),
        ("SSL://0.0.0.0:9092", {}, ["SSL://0.0.0.0:9092"]),
        ("SSL://0.0.0.0:9092", {"ssl.client.auth": "required"}, []),
        ("SSL://0.0.0.0:9092", {"listener.name.ssl.ssl.client.auth": "required"}, []),
        ("SASL_SSL://0.0.0.0:9092", {}, []),
    ],
)
def test_listeners_that_let_in_whoever_reaches_them(
    listeners: str, more: dict[str, str], expected: list[str]
) -> None:
    protocols = "A:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL"
    config = BrokerConfig({"listeners": listeners, "listener.security.protocol.map": protocols, **more})
    assert exposed(config) == expected
