"""Kafka's configuration names: their table, server.properties files, and what is in force.

``definition`` says what a name means; ``topic``, ``broker`` and ``inert`` are the tables; ``values`` resolves
static, cluster-wide and per-broker values to those in force; ``listeners`` reads endpoints.
"""

from __future__ import annotations

from ottla.config.definition import ConfigError, ConfigType, Definition, Effect, Mode
from ottla.config.listeners import Endpoint
from ottla.config.properties import parse_properties
from ottla.config.topic import SYNONYMS, TOPIC
from ottla.config.values import BROKER, BrokerConfig, Source, Synonym, check_known

__all__ = (
    "BROKER",
    "SYNONYMS",
    "TOPIC",
    "BrokerConfig",
    "ConfigError",
    "ConfigType",
    "Definition",
    "Effect",
    "Endpoint",
    "Mode",
    "Source",
    "Synonym",
    "check_known",
    "parse_properties",
)
