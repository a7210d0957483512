"""The control port's endpoints for faults, and for the requests that the broker has seen."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any

from ottla.errors import ErrorCode
from ottla.observe.http import Response
from ottla.testing.control.asked import Asked
from ottla.testing.control.errors import ControlError, bad_request, meant, shown, timed_out
from ottla.testing.control.fields import Fields
from ottla.testing.control.values import answer, answer_list, shown_request, shown_rule
from ottla.testing.faults import REQUESTS_MAX, Faults, Request, Rule, Selector, api_names, error_code
from ottla.wire.apis import BY_NAME

# Each request of a client is held against all faults that have not ended.
FAULTS_MAX = 100
DELAY_MS_MAX = 3_600_000
TIMES_MAX = 1_000_000_000
APIS_MAX = len(BY_NAME)
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
# Requests that are looked at before others have their turn.
LOOKED_AT_ONCE = 1_000

KINDS = ("fail", "delay", "drop", "refuse_connections", "hold_markers")


class FaultEndpoints:
    """Remembers faults that have ended, so that their hits can be asked for: the latest `FAULTS_MAX`."""

    def __init__(self) -> None:
        self._started: dict[int, Rule] = {}

    async def add(self, asked: Asked) -> Response:
        faults, fields = asked.faults, asked.fields
        if len(faults.rules) >= FAULTS_MAX:
            why = f"There are {FAULTS_MAX} faults. End some of them first."
            raise ControlError(HTTPStatus.CONFLICT, "TOO_MANY_FAULTS", why)
        kind = fields.text("fault")
        if kind not in KINDS:
            raise bad_request("UNKNOWN_FAULT", f"There is no fault {shown(kind)}. {meant(kind, KINDS)}")
        rule = _start(faults, kind, fields)
        self._started[rule.id] = rule
        for number in list(self._started)[: max(len(self._started) - 2 * FAULTS_MAX, 0)]:
            if self._started[number] not in faults.rules:
                del self._started[number]
        return answer(_with_state(rule, faults), HTTPStatus.CREATED)

    async def list_(self, asked: Asked) -> Response:
        asked.fields.end()
        return answer_list("faults", [_with_state(rule, asked.faults) for rule in asked.faults.rules])

    async def one(self, asked: Asked) -> Response:
        asked.fields.end()
        return answer(_with_state(self._find(asked), asked.faults))

    async def end(self, asked: Asked) -> Response:
        asked.fields.end()
        rule = self._find(asked)
        rule.end()
        return answer(_with_state(rule, asked.faults))

    async def end_all(self, asked: Asked) -> Response:
        asked.fields.end()
        ended = len(asked.faults.rules)
        asked.faults.clear()
        return answer({"ended": ended})

    def _find(self, asked: Asked) -> Rule:
        number = Fields(asked.path, "path").whole("id", 0, TIMES_MAX)
        known = {rule.id: rule for rule in asked.faults.rules} | self._started
        if number not in known:
            why = f"There is no fault with the id {number}."
            raise ControlError(HTTPStatus.NOT_FOUND, "UNKNOWN_FAULT", why)
        return known[number]


def _with_state(rule: Rule, faults: Faults) -> dict[str, Any]:
    return {**shown_rule(rule), "ended": rule not in faults.rules}


def _start(faults: Faults, kind: str, fields: Fields) -> Rule:
    """Start the fault that a request asks for. All fields are read before: nothing starts in part."""
    times = fields.whole_or_none("times", 1, TIMES_MAX) if kind != "hold_markers" else None
    if kind == "refuse_connections":
        fields.end()
        return faults.refuse_connections(times=times)
    topic = fields.text_or_none("topic")
    if kind == "hold_markers":
        fields.end()
        return faults.hold_markers(topic=topic)
    api, client_id = _apis(fields), fields.text_or_none("client_id")
    if kind == "fail":
        error = _error(fields)
        fields.end()
        return faults.fail(api, error, times=times, topic=topic, client_id=client_id)
    if kind == "delay":
        delay_ms = fields.whole("ms", 0, DELAY_MS_MAX)
        fields.end()
        return faults.delay(api, delay_ms, times=times, topic=topic, client_id=client_id)
    after = fields.flag("after")
    fields.end()
    return faults.drop(api, after=after, times=times, topic=topic, client_id=client_id)


def _apis(fields: Fields) -> list[str] | None:
    """The APIs that ``api`` names: one, or a list; none: any."""
    if not fields.has("api"):
        return None
    given = fields.any_("api")
    names = fields.list_("api", APIS_MAX) if isinstance(given, list) else [fields.text("api")]
    if not names:
        raise bad_request("INVALID_FIELD", "The field 'api' is an empty list. Leave it out for any API.")
    for name in names:
        if not isinstance(name, str) or name not in BY_NAME:
            word = str(name)
            raise bad_request("UNKNOWN_API", f"There is no API {shown(word)}. {meant(word, BY_NAME)}")
    return names


def _error(fields: Fields) -> int:
    given = fields.any_("error")
    if isinstance(given, int) and not isinstance(given, bool):
        given = fields.whole("error", -1, 32767)
    else:
        given = fields.text("error")
    try:
        return error_code(given)
    except ValueError as error:
        names = [code.name.upper() for code in ErrorCode if code is not ErrorCode.none]
        word = str(given)
        why = f"Kafka has no error {shown(word)}. {meant(word, names)}"
        raise bad_request("UNKNOWN_ERROR", why) from error


# ------------------------------------------------------------ requests


def _selector(fields: Fields) -> Selector:
    apis = _apis(fields)
    return Selector(api_names(apis), fields.text_or_none("topic"), fields.text_or_none("client_id"))


async def _matching(faults: Faults, selector: Selector) -> list[Request]:
    """Those that were seen so far; looked through in pieces."""
    found: list[Request] = []
    for count, request in enumerate(faults.requests, 1):
        if selector.matches(request.api, request.client_id, request.topics):
            found.append(request)
        if count % LOOKED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


async def _shown(asked: Asked, found: list[Request], limit: int) -> Response:
    """The latest, oldest first."""
    latest = map(shown_request, found[-limit:])
    return await asked.aside(partial(answer_list, "requests", latest, {"count": len(found)}))


async def requests(asked: Asked) -> Response:
    selector = _selector(asked.fields)
    limit = asked.fields.whole_or("limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    asked.fields.end()
    return await _shown(asked, await _matching(asked.faults, selector), limit)


async def wait_for_requests(asked: Asked) -> Response:
    fields = asked.fields
    selector, timeout_s = _selector(fields), asked.timeout_s()
    count = fields.whole_or("count", 1, 1, REQUESTS_MAX)
    limit = fields.whole_or("limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    fields.end()
    came = asyncio.Event()

    def listener(request: Request) -> None:
        if selector.matches(request.api, request.client_id, request.topics):
            came.set()

    asked.faults.listen(listener)
    found: list[Request] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                came.clear()
                found = await _matching(asked.faults, selector)
                if len(found) >= count:
                    break
                await came.wait()
    except TimeoutError:
        why = f"The broker saw {len(found)} of {count} requests ({selector}) in {timeout_s:g} s."
        raise timed_out(why) from None
    finally:
        asked.faults.unlisten(listener)
    return await _shown(asked, found, limit)


async def forget_requests(asked: Asked) -> Response:
    asked.fields.end()
    forgotten = len(asked.faults.requests)
    asked.faults.forget()
    return answer({"forgotten": forgotten})
