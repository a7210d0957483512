"""What a run has loaded and compiled of ours is so for the runs after it, which are forked from one process.

A node loads messages and handlers when they are first asked for, which took more than half of a short run. A
run tells by a pipe what it came to need, and the process that it was forked from learns it. Only what is of
Ottla, kio and Python's codecs: what a program imports in a run stays a part of that run.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from ottla.wire import messages

_PACKAGES = frozenset({"encodings", "kio", "ottla"})


def needed() -> bytes:
    """What is loaded and compiled in this process, to be told to `learn`."""
    modules = [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]
    return json.dumps([modules, messages.compiled()]).encode()


def learn(told: bytes) -> None:
    """Load and compile what another process has come to need, as told by `needed`."""
    modules, compiled = json.loads(told)
    for name in modules:
        if name not in sys.modules:
            import_module(name)
    for kind, api_key, version in compiled:
        messages.compile_now(kind, api_key, version)
