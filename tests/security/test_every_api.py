"""Each API asked by whom may not, by whom may do all that it demands, and by whom lacks just one of that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from cases import CASES, UNTOLD, Case, prepare
from rights_support import Broker, Right, client, codes, denials, started, whole

from ottla.security.acl_bindings import ResourceType
from ottla.security.demands import DEMANDS
from ottla.wire.apis import APIS, BY_NAME, Api
from ottla.wire.fields import ZERO, describe
from ottla.wire.messages import load

# Whoever can reach a broker may ask these; of tokens those whose they are.
FREE = {
    "ApiVersions", "SaslHandshake", "SaslAuthenticate", "RenewDelegationToken", "ExpireDelegationToken",
    "GetTelemetrySubscriptions", "PushTelemetry",
}  # fmt: skip


class Running(NamedTuple):
    runner: asyncio.Runner
    broker: Broker


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with asyncio.Runner() as runner:
        broker = started(tmp_path_factory.mktemp("broker"), runner)
        runner.run(prepare(broker))
        yield Running(runner, broker)
        runner.run(broker.node.stop())


def of_gate_alone(api: Api) -> bool:
    """Whether all that an API demands is of the cluster, and refused as a whole."""
    demands = DEMANDS[api.key]
    return bool(demands) and all(d.is_of_gate and d.resource_type is ResourceType.CLUSTER for d in demands)


GATED = sorted(
    api.name for api in APIS.values() if of_gate_alone(api) and api.name not in FREE
    and api.name not in {case.api for case in CASES}
)  # fmt: skip


def test_there_is_a_case_for_each_demand_of_each_api() -> None:
    """Whoever adds an API, or a demand, has a case here."""
    told = {(case.api, right.operation, right.resource_type) for case in CASES for right in case.needs}
    told |= {(case.api, each.operation, each.resource_type) for case in CASES for each in case.instead}
    missing = {
        (APIS[key].name, demand.operation, demand.resource_type)
        for key, demands in DEMANDS.items()
        if APIS[key].name not in GATED
        for demand in demands
    } - told
    assert missing == UNTOLD
    assert {case.api for case in CASES} | set(GATED) | FREE >= set(BY_NAME)


async def asked(broker: Broker, case: Case, *rights: Right) -> Any:
    alice = client(*rights)
    alice.listener = case.listener
    return await broker.ask(alice, case.api, case.version, case.request(broker))


def ids(case: Case) -> str:
    return f"{case.api}-{case.version}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_whoever_lacks_a_right_is_told_so_or_shown_nothing(running: Running, case: Case) -> None:
    async def ask(*rights: Right) -> Any:
        return await asked(running.broker, case, *rights)

    async def main() -> None:
        answer = await ask()
        errors = {error for error in case.needs.values() if error is not None}
        if errors:
            assert denials(answer) and denials(answer) <= errors
        if case.shows is not None:
            assert not case.shows(answer)
        for right, error in case.needs.items():
            answer = await ask(*(each for each in case.needs if each != right))
            assert denials(answer) == (set() if error is None else {error})
            if error is None:
                assert case.shows is not None and not case.shows(answer)

    running.runner.run(main())


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_whoever_has_all_rights_is_refused_nothing(running: Running, case: Case) -> None:
    async def ask(*rights: Right) -> Any:
        return await asked(running.broker, case, *rights)

    async def main() -> None:
        for rights in (tuple(case.needs), *((each,) for each in case.instead)):
            answer = await ask(*rights)
            assert not denials(answer)
            if case.shows is not None:
                assert case.shows(answer)

    running.runner.run(main())


def filled(entity: type[Any]) -> dict[str, Any]:
    """One of everything; the kinds of ACLs are any."""
    made: dict[str, Any] = {}
    for field in describe(entity):
        if field.tag is not None:
            continue
        if field.entity is not None:
            one: Any = filled(field.entity)
        else:
            one = 1 if field.kind == "int8" else ZERO[field.kind]
        made[field.name] = [one] if field.array else one
    return whole(entity, made)


@pytest.mark.parametrize("name", GATED)
def test_what_is_of_the_cluster(running: Running, name: str) -> None:
    api = BY_NAME[name]
    version = api.version_max
    request = filled(load(api.schema, version, "request"))
    (demand,) = DEMANDS[api.key]
    rights = [Right(demand.operation, demand.resource_type)]
    if demand.or_else is not None:
        rights.append(Right(*demand.or_else))

    async def main() -> None:
        answer = await running.broker.ask(client(), name, version, request)
        assert {code.name for code in codes(answer)} - {"none"} == {"cluster_authorization_failed"}
        for right in rights:
            assert not denials(await running.broker.ask(client(right), name, version, request))

    running.runner.run(main())
