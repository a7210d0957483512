"""The levels of this process's loggers, under Kafka's names (``Log4jCoreController``, KIP-412).

They are changed while it runs, and not stored. Setting one that others take theirs from, as `ottla.broker`
is, sets all of those that have none of their own.
"""

from __future__ import annotations

import logging

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ConfigChange, OpType

log = logging.getLogger(__name__)

ROOT = "root"
TRACE = 5
# As LogLevelConfig has them, from the least to the most.
LEVELS = {
    "FATAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": TRACE,
}


def logger_levels() -> dict[str, str]:
    """The level in force of each logger, by its name."""
    names = sorted(logging.root.manager.loggerDict)
    return {name: _name(_effective(name)) for name in names} | {ROOT: _name(logging.root.level)}


def _effective(name: str) -> int:
    """A logger's level, without making one that nobody has asked for yet."""
    while True:
        logger = logging.root.manager.loggerDict.get(name)
        if isinstance(logger, logging.Logger) and logger.level:
            return logger.level
        name, dot, _ = name.rpartition(".")
        if not dot:
            return logging.root.level


def _name(level: int) -> str:
    """Kafka's name for a level that may lie between two."""
    if level > logging.CRITICAL:
        return "OFF"
    return next((name for name, value in LEVELS.items() if level >= value), "ALL")


def alter_loggers(changes: list[ConfigChange], *, validate_only: bool) -> None:
    """Set levels, or have loggers take theirs from those above them; all of them or none.

    KafkaError as Kafka's ``RuntimeLoggerManager``.
    """
    for change in changes:
        _check(change)
    if validate_only:
        return
    for change in changes:
        logger = logging.root if change.name == ROOT else logging.getLogger(change.name)
        if change.operation == OpType.SET:
            logger.setLevel(LEVELS[change.value or ""])
            log.warning("logger %s: level set to %s", change.name, change.value)
        else:
            logger.setLevel(logging.NOTSET)
            log.warning("logger %s: level removed", change.name)


def _check(change: ConfigChange) -> None:
    if change.operation not in list(OpType):
        raise KafkaError(
            ErrorCode.invalid_request,
            f"Unknown operation type {change.operation} is not allowed for the BROKER_LOGGER resource",
        )
    if change.operation in (OpType.APPEND, OpType.SUBTRACT):
        raise KafkaError(
            ErrorCode.invalid_request,
            f"{OpType(change.operation).name} operation is not allowed for the BROKER_LOGGER resource",
        )
    if change.name != ROOT and change.name not in logging.root.manager.loggerDict:
        raise KafkaError(ErrorCode.invalid_config, f"Logger {change.name} does not exist!")
    if change.operation == OpType.SET and change.value not in LEVELS:
        raise KafkaError(
            ErrorCode.invalid_config,
            f"Cannot set the log level of {change.name} to {change.value} as it is not a supported log "
            f"level. Valid log levels are {', '.join(sorted(LEVELS))}",
        )
    if change.operation == OpType.DELETE and change.name == ROOT:
        raise KafkaError(
            ErrorCode.invalid_request, f"Removing the log level of the {ROOT} logger is not allowed"
        )
