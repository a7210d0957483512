"""The values in force: what was given statically and dynamically, resolved as Kafka resolves it.

Follows ``KafkaConfig`` and ``DynamicBrokerConfig``. A broker's own dynamic value goes before the cluster-wide
dynamic one, that before the static one of server.properties, that before the default.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from ottla.config import rules
from ottla.config.broker import ACTED_ON
from ottla.config.definition import ConfigError, ConfigType, Definition, Effect, Mode, shorten
from ottla.config.inert import INERT
from ottla.config.listener_settings import (
    Given,
    ListenerSettings,
    check_own,
    listeners_own_changed,
    may_differ,
    of_no_listener,
    subject,
)
from ottla.config.listeners import Endpoint, endpoints_of
from ottla.config.observing import OBSERVING
from ottla.config.replication import REPLICATION
from ottla.config.security import SECURITY
from ottla.config.tls import STORES, TLS
from ottla.config.topic import SYNONYMS, TOPIC
from ottla.config.transactions import TRANSACTIONS
from ottla.config.unknown import advice

log = logging.getLogger(__name__)

# The tables of broker configurations, each of which is in one of them, and all of them by name.
TABLES = (ACTED_ON, REPLICATION, TRANSACTIONS, SECURITY, TLS, OBSERVING, INERT)
BROKER: dict[str, Definition] = dict(sorted(item for table in TABLES for item in table.items()))

NODE_ID_DEFAULT = 1
_INTER_BROKER = ("inter.broker.listener.name", "security.inter.broker.protocol")
_ID_NAMES = ("node.id", "broker.id")

_LISTENER_PREFIX = re.compile(r"listener\.name\.[^.]*\.(.*)")
# Older and coarser spellings of the same setting, the one that goes first first.
_SAME: tuple[tuple[str, ...], ...] = (
    ("log.roll.ms", "log.roll.hours"),
    ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
)
_FLUSH = ("log.flush.interval.ms", "log.flush.scheduler.interval.ms")
SAME_SETTING: dict[str, tuple[str, ...]] = {name: names for names in _SAME for name in names} | {
    _FLUSH[0]: _FLUSH
}

# Settings of single listeners that may be given for all brokers.
_LISTENERS_OF_ALL = frozenset(("max.connections", "max.connection.creation.rate", "num.network.threads"))

Listener = Callable[[frozenset[str]], None]


class Source(IntEnum):
    """Where a value comes from, numbered as in DescribeConfigs responses."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_CLUSTER = 3
    STATIC = 4
    DEFAULT = 5
    LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class Synonym(NamedTuple):
    """A value that is in force, or would be if those before it were not set."""

    name: str
    value: str | None
    source: Source


def not_known(properties: Mapping[str, str]) -> list[str]:
    """A warning for each name that is no configuration of a broker: a start that is refused may be for one
    that is meant to be another."""
    return [_not_known(name) for name in properties if name not in BROKER and subject(name, BROKER) is None]


def _not_known(name: str) -> str:
    return f"The configuration '{name}' was supplied but isn't a known config.{advice(name, BROKER)}"


class BrokerConfig:
    """A broker's configuration, live: dynamic changes replace values and tell those who subscribed.

    ``properties`` are those of server.properties and the command line. ConfigError where a value is
    invalid or asks for what this broker cannot do. ``warnings`` has a line for each name that is
    unknown, or whose value asks for something that is missing here; ``idle`` the names that change nothing
    and miss nothing. Both are to be logged at start.
    """

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        self.static: dict[str, str] = dict(properties or {})
        self.dynamic_cluster: Mapping[str, str] = {}
        self.dynamic_broker: Mapping[str, str] = {}
        self.warnings: list[str] = []
        self.idle: list[str] = []
        self._listeners: list[Listener] = []
        self._rules: list[Callable[[Given], None]] = []
        self._values: dict[str, Any] = {name: entry.default for name, entry in BROKER.items()}
        for name, text in self.static.items():
            entry = self._known(name, text)
            if entry is not None:
                self._values[name] = entry.parse(text)
        self._check_ids()
        _name_node(self._values)
        self._topic_defaults = _topic_defaults(self._values)
        self._check()
        self._look_at_inert()
        self.warnings += of_no_listener(self.static, BROKER, self._opened())

    # Reading

    def get(self, name: str) -> Any:
        """The typed value in force. KeyError for a name that is not Kafka's."""
        return self._values[name]

    def is_set(self, name: str) -> bool:
        """Whether a value was given, statically or dynamically."""
        return name in self.static or name in self.dynamic_cluster or name in self.dynamic_broker

    @property
    def given(self) -> dict[str, str]:
        """Everything that was given, statically or dynamically, as text."""
        return self.static | dict(self.dynamic_cluster) | dict(self.dynamic_broker)

    @property
    def node_id(self) -> int:
        return int(self._values["node.id"])

    @property
    def data_dir(self) -> str:
        """The one folder that holds the data."""
        dirs = self.get("log.dirs") or self.get("log.dir")
        return str(dirs[0])

    def listeners(self) -> tuple[Endpoint, ...]:
        """What to listen on for clients and brokers, Kafka's controller listeners left out."""
        return self._endpoints("listeners")

    def advertised_listeners(self) -> tuple[Endpoint, ...]:
        """What clients are told to connect to."""
        given = self.get("advertised.listeners")
        return self._endpoints("listeners" if given is None else "advertised.listeners")

    @property
    def inter_broker_listener(self) -> str:
        """The listener that nodes use among themselves: ``inter.broker.listener.name``, or the one that is
        called as ``security.inter.broker.protocol`` says, or the first."""
        name = self.get("inter.broker.listener.name")
        if name is None and self.is_set("security.inter.broker.protocol"):
            name = self.get("security.inter.broker.protocol")
        return self.listeners()[0].listener if name is None else str(name).upper()

    def for_listener(self, listener: str) -> ListenerSettings:
        """What a listener is set to, which may have values of its own."""
        return ListenerSettings(self, listener, BROKER)

    def topic_values(self, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Typed values of a topic's configurations, by topic configuration name.

        ``overrides`` are the topic's own. An override that this version does not know, or cannot
        parse, is left out: it was valid for whoever wrote it, and a log must open all the same.
        """
        values = dict(self._topic_defaults)
        for name, text in (overrides or {}).items():
            try:
                values[name] = TOPIC[name].parse(text)
            except (KeyError, ConfigError):
                continue
        if values["internal.segment.bytes"] is not None:
            values["segment.bytes"] = values["internal.segment.bytes"]
        return values

    def topic_default(self, name: str) -> Any:
        """The typed value of a topic configuration for topics that do not set it."""
        return self._topic_defaults[name]

    def synonyms(self, name: str) -> list[Synonym]:
        """All that is set for a broker configuration, the value in force first (``ConfigHelper``)."""
        found: list[Synonym] = []
        names = _same_setting(name)
        for given, source in (
            (self.dynamic_broker, Source.DYNAMIC_BROKER),
            (self.dynamic_cluster, Source.DYNAMIC_CLUSTER),
            (self.static, Source.STATIC),
        ):
            found += [Synonym(same, given[same], source) for same in names if same in given]
        for same in names:
            entry = BROKER.get(same)
            if entry is not None and entry.default is not None:
                found.append(Synonym(same, entry.format(entry.default), Source.DEFAULT))
        # As Kafka does: what only a coarser spelling sets is not shown for the finer one.
        while found and found[0].name != name:
            del found[0]
        return found

    # Changing

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with the names whose values changed, after each dynamic change."""
        self._listeners.append(listener)

    def require(self, rule: Callable[[Given], None]) -> None:
        """Have ``rule`` look at dynamic values before they are set; it refuses them by a ConfigError."""
        self._rules.append(rule)

    def update_dynamic(self, cluster: Mapping[str, str], broker: Mapping[str, str]) -> frozenset[str]:
        """Put dynamic values in force, in place of those before; return the names that changed.

        They were checked when they were set. Those that are invalid all the same, because another
        version wrote them, are left out.
        """
        if (cluster, broker) == (self.dynamic_cluster, self.dynamic_broker):
            return frozenset()
        before, before_given = self._values, (self.dynamic_cluster, self.dynamic_broker)
        self.dynamic_cluster, self.dynamic_broker = dict(cluster), dict(broker)
        values = self._resolve(cluster, broker)
        topic_defaults = _topic_defaults(values)
        try:
            rules.check_static(values, topic_defaults)
        except ConfigError as error:
            log.error("dynamic configurations not changed: %s", error)
            return frozenset()
        self._values = values
        self._topic_defaults = topic_defaults
        changed = frozenset(name for name, value in values.items() if value != before[name])
        for name in changed:
            if BROKER[name].effect is Effect.NONE:
                log.warning("%s has no effect: %s", name, BROKER[name].note)
        for old, new in zip(before_given, (self.dynamic_cluster, self.dynamic_broker), strict=True):
            changed |= listeners_own_changed(old, new)
        if changed:
            for listener in self._listeners:
                try:
                    listener(changed)
                except Exception:
                    # One part that fails must not keep the others from theirs.
                    log.exception("a change of the configuration could not be applied")
        return changed

    def check_dynamic(self, properties: Mapping[str, str], *, per_broker: bool) -> None:
        """ConfigError where this broker could not take these dynamic values, in place of those that are set
        for it, or for all brokers (``DynamicBrokerConfig.validate``)."""
        check_dynamic(properties, per_broker=per_broker)
        cluster = self.dynamic_cluster if per_broker else properties
        broker = properties if per_broker else self.dynamic_broker
        values = self._resolve(cluster, broker)
        topic_defaults = _topic_defaults(values)
        rules.check_static(values, topic_defaults)
        rules.check_change(self._values, values, topic_defaults)
        proposed = _Proposed(self.static, cluster, broker, values)
        for rule in self._rules:
            rule(proposed)

    # Inside

    def _resolve(self, cluster: Mapping[str, str], broker: Mapping[str, str]) -> dict[str, Any]:
        """Typed values of the static and these dynamic configurations; a dynamic one that is invalid is left
        out."""
        values = {name: entry.default for name, entry in BROKER.items()}
        for given in (self.static, cluster, broker):
            for name, text in given.items():
                entry = BROKER.get(name)
                if entry is None or (given is not self.static and entry.mode is Mode.READ_ONLY):
                    continue
                try:
                    values[name] = entry.parse(text)
                except ConfigError as error:
                    log.warning("dynamic configuration ignored: %s", error)
        _name_node(values)
        return values

    def _known(self, name: str, text: str) -> Definition | None:
        entry = BROKER.get(name)
        if entry is None:
            of_listener = subject(name, BROKER)
            if of_listener is None:
                self.warnings.append(_not_known(name))
            elif not may_differ(of_listener.name):
                self.warnings.append(
                    f"{name} has no effect: {of_listener.name} is the same for all listeners"
                )
            return None
        if entry.effect is Effect.REFUSED and entry.parse(text) != entry.default:
            raise ConfigError(refusal(entry, text))
        return entry

    def _look_at_inert(self) -> None:
        """Tell what was given without effect and is missed from what is not."""
        for name in self.static:
            entry = BROKER.get(name)
            if entry is None or entry.effect is not Effect.NONE or self._values[name] == entry.default:
                continue
            if entry.is_met(self._values[name]):
                self.idle.append(name)
            else:
                self.warnings.append(f"{name} has no effect: {entry.note}")

    def _endpoints(self, name: str) -> tuple[Endpoint, ...]:
        controllers = tuple(self.get("controller.listener.names"))
        return endpoints_of(
            name, tuple(self.get(name)), self.get("listener.security.protocol.map"), controllers
        )

    def _opened(self) -> set[str]:
        """Names of listeners as ``listeners`` has them, Kafka's controllers' among them."""
        controllers = {listener.strip().lower() for listener in self.get("controller.listener.names")}
        return controllers | {endpoint.listener.lower() for endpoint in self.listeners()}

    def _check_ids(self) -> None:
        ids = {self.get(name) for name in _ID_NAMES if self.is_set(name)}
        if len(ids) > 1:
            raise ConfigError("You must set `node.id` to the same value as `broker.id`.")
        if ids and min(ids) < 0:
            raise ConfigError(f"Invalid value {min(ids)} for configuration node.id: Value must be at least 0")

    def _check(self) -> None:
        """Rules between values (``KafkaConfig.validateValues``) and what this broker cannot do."""
        roles = self.get("process.roles")
        if roles and "broker" not in roles:
            raise ConfigError(
                "process.roles must include 'broker': there is no process that is controller only"
            )
        if len(self.get("log.dirs") or self.get("log.dir")) != 1:
            raise ConfigError("log.dirs must name exactly one folder")
        rules.check_static(self._values, self._topic_defaults)
        check_own(self.static, BROKER)
        self._check_listeners()

    def _check_listeners(self) -> None:
        listeners = self.listeners()
        if not listeners:
            raise ConfigError("listeners must name at least one listener that is not a controller's")
        self._check_inter_broker({endpoint.listener for endpoint in listeners})
        ports = [endpoint.port for endpoint in listeners if endpoint.port]
        if len(set(ports)) != len(ports):
            raise ConfigError("Each listener must have a different port")
        for endpoint in self.advertised_listeners() if self.get("advertised.listeners") else ():
            if endpoint.host == "0.0.0.0":
                raise ConfigError(
                    "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. "
                    "Use a routable IP address."
                )
            if endpoint.listener not in {listener.listener for listener in listeners}:
                raise ConfigError(
                    f"advertised.listeners has {endpoint.listener}, which is not among the listeners"
                )

    def _check_inter_broker(self, names: Container[str]) -> None:
        by = [name for name in _INTER_BROKER if self.is_set(name)]
        if len(by) > 1:
            raise ConfigError(f"Only one of {by[0]} and {by[1]} should be set.")
        if self.inter_broker_listener not in names:
            raise ConfigError(
                f"{by[0]} must name one of the listeners, and none is called {self.inter_broker_listener}"
            )


@dataclass(slots=True)
class _Proposed:
    """What would be in force."""

    static: dict[str, str]
    dynamic_cluster: Mapping[str, str]
    dynamic_broker: Mapping[str, str]
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.values[name]


def _name_node(values: dict[str, Any]) -> None:
    """Put the node's id in force under both of its names."""
    given = max(values[name] for name in _ID_NAMES)
    for name in _ID_NAMES:
        values[name] = NODE_ID_DEFAULT if given < 0 else given


def _topic_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """What topics have that do not say, by the names of topics' configurations."""
    defaults = {name: entry.default for name, entry in TOPIC.items()}
    for name, synonyms in SYNONYMS.items():
        for synonym in synonyms:
            value = values.get(synonym.name)
            if value is not None:
                defaults[name] = value if synonym.factor == 1 else value * synonym.factor
                break
    if defaults["retention.ms"] < 0:
        defaults["retention.ms"] = -1
    return defaults


def _same_setting(name: str) -> tuple[str, ...]:
    prefixed = _LISTENER_PREFIX.fullmatch(name)
    return (name, prefixed[1]) if prefixed else SAME_SETTING.get(name, (name,))


def refusal(entry: Definition, text: str) -> str:
    return f"Invalid value {shorten(text)} for configuration {entry.name}: not supported here: {entry.note}"


def check_topic(config: BrokerConfig, overrides: Mapping[str, str]) -> None:
    """ConfigError where a topic could not have these overrides (``LogConfig.validate``)."""
    for name in overrides:
        if name not in TOPIC:
            raise ConfigError(f"Unknown topic config name: {name}")
    for name, text in overrides.items():
        entry = TOPIC[name]
        if entry.parse(text) != entry.default and entry.effect is Effect.REFUSED:
            raise ConfigError(refusal(entry, text))
    rules.check_compaction_lags(config.topic_values(overrides))


def check_dynamic(properties: Mapping[str, str], *, per_broker: bool) -> None:
    """ConfigError where no broker could take these (``DynamicBrokerConfig.validateConfigs``)."""
    _refuse(
        "Cannot update these configs dynamically",
        (name for name in properties if _mode(name) is Mode.READ_ONLY),
        "; set it in server.properties and restart",
    )
    _refuse(
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        (name for name in properties if name in STORES),
    )
    if not per_broker:
        _refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            (name for name in properties if _is_per_broker(name)),
        )
    for name, text in properties.items():
        entry = BROKER.get(name)
        if entry is None:
            continue
        if entry.parse(text) != entry.default and entry.effect is Effect.REFUSED:
            raise ConfigError(refusal(entry, text))
    check_own(properties, BROKER)
    for name in properties:
        prefixed = _LISTENER_PREFIX.fullmatch(name)
        if prefixed and prefixed[1] in rules.ABOVE_ZERO and BROKER[prefixed[1]].parse(properties[name]) <= 0:
            raise ConfigError(f"Invalid {prefixed[1]} {properties[name]}")


def _is_per_broker(name: str) -> bool:
    prefixed = _LISTENER_PREFIX.fullmatch(name)
    if prefixed:
        return prefixed[1] not in _LISTENERS_OF_ALL
    return _mode(name) is Mode.PER_BROKER


def check_known(names: Iterable[str]) -> None:
    """ConfigError where one is no broker configuration; it says which may have been meant."""
    for name in names:
        if name in BROKER or subject(name, BROKER) is not None:
            continue
        if name in SYNONYMS:
            raise ConfigError(
                f"{name!r} is a configuration of topics; that of brokers is {_broker_name(name)!r}"
            )
        close = difflib.get_close_matches(name, BROKER, 1)
        raise ConfigError(
            f"{name!r} is no broker configuration." + (f" Did you mean {close[0]!r}?" if close else "")
        )


def _broker_name(topic_name: str) -> str:
    return SYNONYMS[topic_name][0].name


def _mode(name: str) -> Mode | None:
    entry = BROKER.get(name)
    return None if entry is None else entry.mode


def _refuse(message: str, names: Iterable[str], advice: str = "") -> None:
    refused = sorted(names)
    if refused:
        raise ConfigError(f"{message}: [{', '.join(refused)}]{advice}")


def is_list(table: Mapping[str, Definition], name: str) -> bool:
    """Whether APPEND and SUBTRACT make sense for a configuration."""
    entry = table.get(name)
    return entry is not None and entry.type is ConfigType.LIST
