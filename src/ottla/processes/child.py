"""The program of one node of `ottla serve --processes`: its settings come on stdin, in one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ottla import __version__, implementation

if __name__ == "__main__":
    # Before anything is imported that is compiled.
    implementation.use_build()

from ottla import process
from ottla.config import ConfigError
from ottla.config.node import NodeSettings, StartError
from ottla.env.parent import end_with
from ottla.errors import KafkaError
from ottla.extras import MissingExtra
from ottla.logging_setup import set_up
from ottla.metadata.store import StoreError
from ottla.text import printable


def line_of(settings: NodeSettings, log_format: str, log_level: str, parent: int) -> bytes:
    """What the node's program is to be sent."""
    document = {
        "version": __version__,
        "parent": parent,
        "log_format": log_format,
        "log_level": log_level,
        "settings": asdict(settings),
    }
    return json.dumps(document).encode() + b"\n"


def settings_of(document: Mapping[str, Any]) -> NodeSettings:
    """What ``line_of`` was given."""
    given = dict(document["settings"])
    given["siblings"] = tuple(given["siblings"])
    given["shared"] = tuple((listener, fd) for listener, fd in given["shared"])
    return NodeSettings(**given)


def main() -> int:
    """Serve until SIGTERM, or the parent's end; the exit code."""
    document = json.loads(sys.stdin.buffer.readline())
    end_with(document["parent"])
    settings = settings_of(document)
    set_up(document["log_format"], document["log_level"], settings.node_id)
    try:
        if document["version"] != __version__:
            raise StartError(
                f"version {__version__} of ottla is installed, and {document['version']} was started: "
                "start it again"
            )
        return process.run_node(settings)
    except (ConfigError, StartError, StoreError, KafkaError, MissingExtra, OSError, UnicodeError) as error:
        reason = printable(f"ottla: node {settings.node_id}: {error}")
        print(reason, file=sys.stderr)  # noqa: T201 - the one line that says why
        return 1


if __name__ == "__main__":
    sys.exit(main())
