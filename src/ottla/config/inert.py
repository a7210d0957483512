"""Broker configurations without effect here: accepted with a warning, or refused."""

from __future__ import annotations

from ottla.config.definition import Definition

INERT: dict[str, Definition] = {}
