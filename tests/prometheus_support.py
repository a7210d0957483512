"""Debian's Prometheus for tests: `scripts/debian-packages.sh prometheus` unpacks it in build/prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "ottla.rules.yaml"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    unpacked = ROOT / "build" / "prometheus" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    assert found, f"there is no {name}: scripts/debian-packages.sh prometheus"
    return found


def promtool(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Its output; AssertionError where it finds something wrong."""
    done = subprocess.run([program("promtool"), *arguments], input=stdin, capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, text
    return text


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


class Selected(NamedTuple):
    """The metrics that an expression of PromQL looks at, each with the labels that it is chosen by; and the
    labels that results are grouped or joined by."""

    metrics: list[tuple[str, set[str]]]
    grouped: set[str]


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_:][\w:]*|\d[\w.]*|=~|!~|!=|\S')
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_OPERATORS = {"and", "or", "unless", "bool", "offset"}


def selected(expression: str) -> Selected:
    """Of as much of the language as rules and dashboards have."""
    tokens = _TOKEN.findall(expression)
    metrics: list[tuple[str, set[str]]] = []
    grouped: set[str] = set()
    at = 0
    while at < len(tokens):
        word, *rest = tokens[at:]
        following = rest[0] if rest else ""
        at += 1
        if word in _GROUPING:
            end = tokens.index(")", at)
            grouped.update(tokens[at + 1 : end : 2])
            at = end + 1
        elif re.match(r"[a-zA-Z_:]", word) and word not in _OPERATORS and following not in {"(", *_GROUPING}:
            labels: set[str] = set()
            if following == "{":
                end = tokens.index("}", at)
                labels.update(tokens[at + 1 : end : 4])
                at = end + 1
            metrics.append((word, labels))
    return Selected(metrics, grouped)
