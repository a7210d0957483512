"""What an agent sends, as readings: collectd's JSON format, one value list or several in a message."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

READINGS_PER_MESSAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one series of one host; the time is the agent's, in ms since the Unix epoch."""

    host: str
    series: str
    at_ms: int
    value: float


def read(message: bytes | None) -> list[Reading]:
    """The readings in a message; none in what is no JSON of this form. What is no number is left out."""
    try:
        content = json.loads(message or b"")
    except ValueError:
        return []
    lists = content if isinstance(content, list) else [content]
    readings: list[Reading] = []
    for values in lists:
        readings += _readings(values)
        if len(readings) >= READINGS_PER_MESSAGE_MAX:
            break
    return readings[:READINGS_PER_MESSAGE_MAX]


def _readings(values: Any) -> Iterator[Reading]:
    try:
        host, at_ms = str(values["host"]), round(float(values["time"]) * 1000)
        name = "/".join(_joined(values[part], values.get(f"{part}_instance")) for part in ("plugin", "type"))
        numbers, names = list(values["values"]), list(values["dsnames"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    for number, of in zip(numbers, names, strict=False):
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            yield Reading(host, name if len(names) == 1 else f"{name}/{of}", at_ms, float(number))


def _joined(name: str, instance: str | None) -> str:
    return f"{name}-{instance}" if instance else str(name)


def written(host: str, at_s: float, interval_s: float, values: dict[tuple[str, str, str], float]) -> bytes:
    """Gauges as collectd would write them; the keys are plugin instance, type, type instance."""
    return json.dumps(
        [
            {
                "values": [value],
                "dstypes": ["gauge"],
                "dsnames": ["value"],
                "time": round(at_s, 3),
                "interval": interval_s,
                "host": host,
                "plugin": "psutil",
                "plugin_instance": instance,
                "type": kind,
                "type_instance": type_instance,
            }
            for (instance, kind, type_instance), value in values.items()
        ]
    ).encode()
