"""Keeps a node's authorizer at the ACLs of the metadata image."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from ottla.metadata.image import ClusterImage
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import AclBinding, Permission

# ACLs that change at once: some microseconds each.
AT_ONCE = 500


class AclFollower:
    """Subscribes to the metadata of a node."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def follow(self, old: ClusterImage, new: ClusterImage) -> Generator[None, None, None] | None:
        """Have the ACLs of the new image, in pieces; None where they did not change."""
        if new.acls is old.acls:
            return None
        return self._change(old.acls, new.acls)

    def _change(
        self, old: Mapping[str, AclBinding], new: Mapping[str, AclBinding]
    ) -> Generator[None, None, None]:
        """First what forbids more, then what allows more: between two pieces nobody may do anything that both
        before and afterwards nobody may."""
        removed = [acl for name, acl in old.items() if name not in new]
        yield
        added = [acl for name, acl in new.items() if name not in old]
        yield
        for permission in (Permission.DENY, Permission.ALLOW):
            come = [acl for acl in added if acl.permission is permission]
            go = [acl for acl in removed if acl.permission is not permission]
            for first in range(0, max(len(come), len(go)), AT_ONCE):
                self._authorizer.change(go[first : first + AT_ONCE], come[first : first + AT_ONCE])
                yield
