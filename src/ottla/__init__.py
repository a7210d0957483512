"""Ottla: Apache Kafka's protocol, semantics and log format, in Python."""

__version__ = "0.1.0"
