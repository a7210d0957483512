"""What the decorators `explore` and `explore_real` share: a test takes a world, what stands for it none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

# A range with more seeds than this is one without an end.
SEEDS_MAX = 10**9
NODES_MAX = 9
Config = Mapping[str, str | int | bool] | None


def check(seeds: int, nodes: int, topics: Mapping[str, int] | None, config: Mapping[str, str] | None) -> None:
    """ValueError or TypeError for what no test has."""
    __tracebackhide__ = True
    if not 1 <= seeds <= SEEDS_MAX:
        raise ValueError(f"seeds={seeds}: from 1 to {SEEDS_MAX}")
    check_nodes(nodes)
    if topics is not None:
        _check_topics(topics)
    if config:
        from ottla.config import BrokerConfig, ConfigError, check_known

        try:
            check_known(config)
            BrokerConfig(config)
        except ConfigError as error:
            raise ValueError(f"config: {error}") from None


def texts(config: Config) -> dict[str, str]:
    """Settings as Kafka has them: texts, also where somebody gives numbers and booleans."""
    given = (config or {}).items()
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given}


def _check_topics(topics: Mapping[str, int]) -> None:
    __tracebackhide__ = True
    if not isinstance(topics, Mapping):
        raise TypeError(f"topics={topics!r}: give each its partitions, as in topics={{'orders': 3}}")
    from ottla.metadata.topics import name_fault

    for name, partitions in topics.items():
        if fault := name_fault(name):
            raise ValueError(f"topics: the name of a topic is invalid: {fault}")
        if not isinstance(partitions, int) or partitions < 1:
            raise ValueError(f"topics: {name!r} has {partitions!r} partitions: give a number from 1 on")


def check_nodes(nodes: int) -> None:
    """ValueError for a number of nodes that no world has."""
    __tracebackhide__ = True
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"nodes={nodes}: a world has 1 to {NODES_MAX} nodes")


def check_brackets(given: object, decorator: str) -> None:
    """TypeError where a decorator is written without its brackets, and so is given the test."""
    __tracebackhide__ = True
    if given is not None:
        raise TypeError(f"write @{decorator}(), with brackets, not @{decorator}")


def check_program(name: object, main: object) -> None:
    """TypeError for what is no program's name, and for what a coroutine function makes in its place."""
    if not isinstance(name, str):
        raise TypeError(f"a program begins with its name, not with {name!r}: world.program('shop', shop)")
    if inspect.iscoroutine(main):
        # Nobody is to be told beside that it is not awaited.
        main.close()
        call = main.__name__
        raise TypeError(
            f"give the function and its arguments, not what {call}(…) makes: "
            f"world.program({name!r}, {call}, …)"
        )


def check_test(test: object, decorator: str, *, is_async: bool) -> None:
    """TypeError for what is no function of a module that takes a world alone. It says what to write."""
    __tracebackhide__ = True
    if not inspect.isfunction(test):
        raise TypeError(f"@{decorator}() belongs above a function, not above {test!r}")
    name = test.__qualname__
    if inspect.iscoroutinefunction(test) != is_async:
        is_wrong = "a simulated world is awaited" if is_async else "in real time nothing is awaited"
        words = ("async def", "def") if is_async else ("def", "async def")
        raise TypeError(f"{name}: {is_wrong}: write `{words[0]}`, not `{words[1]}`")
    if is_async and "<locals>" in name:
        raise TypeError(f"{name}: {decorator} takes functions of a module, not those within another function")
    if "." in name.rpartition("<locals>.")[2]:
        raise TypeError(
            f"{name}: {decorator} takes functions of a module: make this method one, without `self`"
        )
    parameters = list(inspect.signature(test).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != 1 or parameters[0].kind not in kinds:
        raise TypeError(
            f"{name}{inspect.signature(test)}: a test that is explored takes the world and no fixtures, as "
            "it runs again and again: let it call what it needs"
        )


def target_of(test: Callable[..., object]) -> str:
    """FILE::NAME, for the command line."""
    path = Path(inspect.getfile(test))
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}::{test.__qualname__}"


def stand_for(test: Callable[..., object], explored: Callable[[], None], exploration: object) -> None:
    """Give ``explored`` the name of the test, and the exploration, by which it is found in its file."""
    # Not functools.wraps: pytest would look for a fixture `world`.
    explored.__name__, explored.__qualname__ = test.__name__, test.__qualname__
    explored.__module__, explored.__doc__ = test.__module__, test.__doc__
    explored.exploration = exploration  # type: ignore[attr-defined]
