"""What a client may do before anybody has looked who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from ottla.security.acl_bindings import Operation, ResourceType
    from ottla.security.acl_rules import Decision


@final
class Nothing:
    """Nothing. (``ottla.security.acl.Permissions``; apart from it, since each node has this one.)"""

    version = 0

    def decide(self, operation: Operation, resource_type: ResourceType, name: str) -> Decision:
        from ottla.security.acl import DEFAULT_DENY

        return DEFAULT_DENY

    def allows(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        return False

    def allows_any(self, operation: Operation, resource_type: ResourceType) -> bool:
        return False

    def operations(self, resource_type: ResourceType, name: str) -> int:
        return 0


NOTHING: Final = Nothing()
