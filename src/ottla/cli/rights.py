"""The right that a request needs, in words: the operation, the resource, and the command that gives it."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from ottla.errors import ErrorCode

# The option of `ottla acl add` for a resource, by its kind.
_OPTIONS = {"topic": "--topic", "group": "--group", "transactional id": "--transactional-id"}

# The kind of resource that an error of a missing right is about.
KINDS: dict[int, str] = {
    ErrorCode.topic_authorization_failed: "topic",
    ErrorCode.group_authorization_failed: "group",
    ErrorCode.cluster_authorization_failed: "cluster",
    ErrorCode.transactional_id_authorization_failed: "transactional id",
}


class Right(NamedTuple):
    """``operation`` is as `ottla acl add` takes it; the cluster, of all kinds of resources, has no name."""

    operation: str
    kind: str
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} {self.name!r}" if self.name else f"the {self.kind}"
        resource = f"{_OPTIONS[self.kind]} {shlex.quote(self.name)}" if self.name else f"--{self.kind}"
        return (
            f"the user lacks the right to {self.operation} on {what}: "
            f"'ottla acl add USER --operation {self.operation} {resource}' gives it"
        )
