"""What single listeners are set to, and which of them nodes use among themselves."""

from __future__ import annotations

import pytest

from ottla.config import BrokerConfig, ConfigError, check_known


def test_a_listener_s_own_value_goes_before_that_of_all() -> None:
    config = BrokerConfig(
        {
            "max.connections": "7",
            "listener.name.inner.max.connections": "3",
            "listener.name.sasl_ssl.scram-sha-512.connections.max.reauth.ms": "5000",
            "connections.max.reauth.ms": "9000",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": "x required;",
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
