"""Ottla: Apache Kafka's protocol, semantics and log format, in Python."""

import sys

if sys.platform == "win32":
    raise ImportError("ottla runs on Linux and macOS, not on Windows: take WSL, or a container")

from ottla import implementation as _implementation

__version__ = "0.2.0.dev0"

_implementation.begin()
