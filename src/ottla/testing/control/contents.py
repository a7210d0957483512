"""The control port's endpoints for what is in the broker: topics, records, groups, transactions."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any

from ottla.observe.http import Response
from ottla.testing import contents, transactions
from ottla.testing import groups as of_groups
from ottla.testing import topics as of_topics
from ottla.testing.control.asked import Asked
from ottla.testing.control.errors import ControlError, bad_request, meant, shown, timed_out
from ottla.testing.control.fields import Fields
from ottla.testing.control.reading import Counted, Page, Start, read_page
from ottla.testing.control.values import Document, answer, answer_list, as_json, to_bytes
from ottla.text import is_text
from ottla.types import Record
from ottla.wire.records import build_batch

PARTITIONS_MAX = 1_000
PARTITION_MAX = 2**31 - 1
OFFSET_MAX = 2**63 - 1
CONFIGS_MAX = 100
RECORDS_MAX, HEADERS_MAX = 10_000, 100
PAGE_LIMIT, PAGE_LIMIT_MAX = 100, 10_000
PAGE_BYTES, PAGE_BYTES_MAX = 1024 * 1024, 16 * 1024 * 1024
COUNT_MAX = 1_000_000_000


async def topics(asked: Asked) -> Response:
    asked.fields.end()
    found = contents.topics(asked.node).items()
    shown_topics = [{"name": name, "partitions": count} for name, count in sorted(found)]
    return await asked.aside(partial(answer_list, "topics", shown_topics))


async def create_topic(asked: Asked) -> Response:
    fields = asked.fields
    name = fields.text("name")
    partitions = fields.whole_or("partitions", 1, 1, PARTITIONS_MAX)
    configs = _configs(fields)
    fields.end()
    await of_topics.create(asked.nodes, name, partitions, -1, configs)
    return answer({"name": name, "partitions": partitions}, HTTPStatus.CREATED)


def _configs(fields: Fields) -> dict[str, str]:
    given = fields.object_("config") if fields.has("config") else {}
    if len(given) > CONFIGS_MAX:
        raise bad_request("INVALID_FIELD", f"The field 'config' has more than {CONFIGS_MAX} names.")
    for name, value in given.items():
        if not isinstance(value, str | int | bool):
            why = f"The value of {shown(name)} in 'config' is not a string, a whole number, true or false."
            raise bad_request("INVALID_FIELD", why)
        if isinstance(value, str) and not is_text(value):
            why = f"The value of {shown(name)} in 'config' is no text, it has half of a character."
            raise bad_request("INVALID_FIELD", why)
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()
    }


def _check_known(asked: Asked, topic: str) -> None:
    """ControlError where there is no such topic; it says which may have been meant."""
    known = asked.node.services.metadata.image.topics
    if topic not in known:
        hint = meant(topic, (name for name in known if not name.startswith("__")))
        why = f"There is no topic {shown(topic)}. {hint}"
        raise ControlError(HTTPStatus.NOT_FOUND, "UNKNOWN_TOPIC_OR_PARTITION", why)


async def delete_topic(asked: Asked) -> Response:
    asked.fields.end()
    topic = asked.path["topic"]
    _check_known(asked, topic)
    if topic.startswith("__"):
        why = f"{topic} is a topic of the broker's own: without it groups and transactions are lost."
        raise ControlError(HTTPStatus.CONFLICT, "INTERNAL_TOPIC", why)
    await of_topics.delete(asked.nodes, topic)
    return answer({"name": topic, "deleted": True})


# ------------------------------------------------------------ records


async def produce(asked: Asked) -> Response:
    fields, topic = asked.fields, asked.path["topic"]
    _check_known(asked, topic)
    partition = fields.whole_or("partition", 0, 0, PARTITION_MAX)
    now_ms = asked.node.services.clock.now_ms()
    given = fields.list_("records", RECORDS_MAX)
    fields.end()
    if not given:
        raise bad_request("INVALID_FIELD", "The field 'records' of the body is an empty list.")
    batch = await asked.aside(partial(_batch, given, now_ms))
    offset = await of_topics.append(asked.nodes, topic, partition, batch)
    written = {"topic": topic, "partition": partition, "base_offset": offset, "count": len(given)}
    return answer(written, HTTPStatus.CREATED)


def _batch(given: list[Any], now_ms: int) -> bytes:
    return build_batch([_record(one, number, now_ms) for number, one in enumerate(given)])


def _record(given: Any, number: int, now_ms: int) -> Record:
    where = f"record {number}"
    if not isinstance(given, dict):
        raise bad_request("INVALID_FIELD", f"The {where} is not an object.")
    fields = Fields(given, where)
    key, value = (to_bytes(fields.any_(name), f"{name} of {where}") for name in ("key", "value"))
    timestamp_ms = fields.whole_or("timestamp_ms", now_ms, 0, OFFSET_MAX)
    headers = fields.list_("headers", HEADERS_MAX) if fields.has("headers") else []
    fields.end()
    return Record(0, timestamp_ms, key, value, tuple(_header(header, where) for header in headers))


def _header(given: Any, where: str) -> tuple[str, bytes | None]:
    if not isinstance(given, dict):
        raise bad_request("INVALID_FIELD", f"A header of {where} is not an object with name and value.")
    fields = Fields(given, f"header of {where}")
    name, value = fields.text("name"), to_bytes(fields.any_("value"), f"header of {where}")
    fields.end()
    return name, value


async def records(asked: Asked) -> Response:
    fields, topic = asked.fields, asked.path["topic"]
    _check_known(asked, topic)
    partition = fields.whole_or_none("partition", 0, PARTITION_MAX)
    start = _start(fields)
    limit = fields.whole_or("limit", PAGE_LIMIT, 1, PAGE_LIMIT_MAX)
    bytes_max = fields.whole_or("max_bytes", PAGE_BYTES, 1, PAGE_BYTES_MAX)
    committed = fields.flag("read_committed")
    fields.end()
    count = asked.nodes.check_exists(topic, partition)
    partitions = range(count) if partition is None else (partition,)
    page = Page(limit, bytes_max)
    await read_page(asked.node, topic, partitions, start, page, committed)
    following = None if page.next is None else f"{page.next.partition}:{page.next.offset}"
    rest = as_json({"next": following})
    body = f'{{"records": [{", ".join(page.written)}], {rest[1:]}\n'
    return answer({})._replace(body=body.encode(errors="replace"))


def _start(fields: Fields) -> Start | None:
    """Where ``from`` says that the page begins: PARTITION:OFFSET."""
    if not fields.has("from"):
        return None
    partition, colon, offset = fields.text("from").partition(":")
    digits = partition + offset
    if not (colon and partition and offset and digits.isascii() and digits.isdigit() and len(digits) < 30):
        raise bad_request("INVALID_FIELD", "The field 'from' of the query is not PARTITION:OFFSET.")
    return Start(int(partition), int(offset))


async def wait_for_records(asked: Asked) -> Response:
    fields, topic = asked.fields, asked.path["topic"]
    timeout_s = asked.timeout_s()
    count = fields.whole_or("count", 1, 1, COUNT_MAX)
    partition = fields.whole_or_none("partition", 0, PARTITION_MAX)
    counted = Counted(asked.node, topic, partition, fields.flag("read_committed"))
    fields.end()
    try:
        async with asyncio.timeout(timeout_s):
            await counted.reach(count)
    except TimeoutError:
        known = asked.node.services.metadata.image.topics
        why = f"The topic {shown(topic)} has {counted.count} of {count} records after {timeout_s:g} s."
        if topic not in known:
            why += f" It does not exist. {meant(topic, (one for one in known if not one.startswith('__')))}"
        raise timed_out(why) from None
    return answer({"topic": topic, "count": counted.count})


# ------------------------------------------------------------ transactions


def _shown_transaction(name: str, one: transactions.Transaction) -> Document:
    partitions = [{"topic": where.topic, "partition": where.partition} for where in one.partitions]
    return {"transactional_id": name, **one._asdict(), "partitions": partitions}


async def all_transactions(asked: Asked) -> Response:
    asked.fields.end()
    found = await transactions.transactions(asked.nodes)
    shown_all = (_shown_transaction(name, one) for name, one in found.items())
    return await asked.aside(partial(answer_list, "transactions", shown_all))


async def abort(asked: Asked) -> Response:
    asked.fields.end()
    name = asked.path["transactional_id"]
    await transactions.abort(asked.nodes, name)
    found = await transactions.transactions(asked.nodes)
    return answer(_shown_transaction(name, found[name]))


# ------------------------------------------------------------ all of it


async def disconnect(asked: Asked) -> Response:
    asked.fields.end()
    closed = asked.node.connection_count
    await contents.disconnect(asked.node)
    return answer({"closed": closed})


async def reset(asked: Asked) -> Response:
    """For the next test. Groups that have members stay, without offsets."""
    asked.fields.end()
    asked.faults.clear()
    names = list(contents.topics(asked.node))
    for name in names:
        await of_topics.delete(asked.nodes, name)
    await of_groups.delete_empty(asked.nodes)
    asked.faults.forget()
    return answer({"topics": len(names)})
