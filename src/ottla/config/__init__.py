"""Kafka's configuration names: their table, server.properties files, and what is in force.

``definition`` says what a name means; ``topic``, ``broker``, ``inert``, ``groups`` and ``client_metrics`` are
the tables; ``values`` resolves static, cluster-wide and per-broker values to those in force; ``listeners``
reads endpoints.
"""

from __future__ import annotations

from ottla.config.client_metrics import (
    CLIENT_METRICS,
    InvalidRequest,
    check_client_metrics,
    client_metrics_values,
)
from ottla.config.definition import ConfigError, ConfigType, Definition, Effect, Mode
from ottla.config.groups import BROKER_SYNONYMS, GROUP, check_group, group_values
from ottla.config.listeners import Endpoint
from ottla.config.properties import ConfigFile, parse_properties
from ottla.config.topic import SYNONYMS, TOPIC
from ottla.config.values import BROKER, BrokerConfig, Source, Synonym, check_known

__all__ = (
    "BROKER",
    "BROKER_SYNONYMS",
    "CLIENT_METRICS",
    "GROUP",
    "SYNONYMS",
    "TOPIC",
    "BrokerConfig",
    "ConfigError",
    "ConfigFile",
    "ConfigType",
    "Definition",
    "Effect",
    "Endpoint",
    "InvalidRequest",
    "Mode",
    "Source",
    "Synonym",
    "check_client_metrics",
    "check_group",
    "check_known",
    "client_metrics_values",
    "group_values",
    "parse_properties",
)
