"""Ottla: Apache Kafka's protocol, semantics and log format, in Python."""

from ottla import implementation as _implementation

__version__ = "0.1.0"

_implementation.begin()
