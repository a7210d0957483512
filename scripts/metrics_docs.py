"""Renders docs/METRICS.md: what each metric means, what is normal, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ottla.observe.catalogue import SUBJECTS
from ottla.observe.metric import Metric

TEXT = Path(__file__).with_name("metrics_page.txt")


def render() -> str:
    """The page."""
    parts = [TEXT.read_text()]
    for subject in SUBJECTS:
        parts.append(f"\n## {subject.title}\n")
        parts += [line for metric in subject.metrics for line in _entry(metric)]
    return "".join(parts)


def _entry(metric: Metric) -> Iterator[str]:
    labels = f", by {', '.join(f'`{label}`' for label in metric.labels)}" if metric.labels else ""
    # A place for links: alerts have one each.
    yield f'\n<a id="{metric.name}"></a>\n'
    yield f"**`{metric.name}`** ({metric.kind.value}{labels}). {metric.meaning}\n"
    yield f"*Normal*: {_lower(metric.normal)}"
    yield f" *If not*: {_lower(metric.action)}\n" if metric.action else "\n"
    if metric.kafka:
        yield f"*Kafka*: `{metric.kafka}`\n"


def _lower(text: str) -> str:
    """A sentence that goes on behind a colon."""
    first, rest = text[:1], text[1:]
    return text if rest[:1].isupper() else first.lower() + rest
