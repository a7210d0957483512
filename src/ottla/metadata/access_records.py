"""ACLs, SCRAM credentials and client quotas as the store has them: keys and values (pure).

An ACL has a key of its own, made from what it says: who creates it twice writes the same twice, and one node
can create it while another creates the next.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, unquote

from ottla.metadata import keys
from ottla.security.acl_bindings import AclBinding, Operation, PatternType, Permission, ResourceType
from ottla.security.principals import parse_principal
from ottla.security.quota_entities import Entity
from ottla.security.sasl.scram import ScramCredential, ScramHash
from ottla.security.tokens import DelegationToken

# In a key, where a name would be: everybody who has no quota of their own. No quoted name is like it.
_DEFAULT = "<default>"


def acl_id(acl: AclBinding) -> str:
    """The name of an ACL in its key."""
    return blake2b(acl_value(acl), digest_size=16).hexdigest()


def acl_key(acl: AclBinding) -> str:
    return keys.ACLS + acl_id(acl)


def acl_value(acl: AclBinding) -> bytes:
    return keys.encode(
        {
            "resource_type": acl.resource_type.name,
            "resource_name": acl.resource_name,
            "pattern_type": acl.pattern_type.name,
            "principal": acl.principal,
            "host": acl.host,
            "operation": acl.operation.name,
            "permission": acl.permission.name,
        }
    )


def acl_of(content: dict[str, Any]) -> AclBinding:
    """KeyError for what a later release means by it."""
    return AclBinding(
        ResourceType[content["resource_type"]],
        content["resource_name"],
        PatternType[content["pattern_type"]],
        content["principal"],
        content["host"],
        Operation[content["operation"]],
        Permission[content["permission"]],
    )


def scram_key(user: str, hash: ScramHash) -> str:
    return f"{keys.USERS}{quote(user, safe='')}/scram/{hash.name}"


def scram_of(path: str) -> tuple[str, ScramHash] | None:
    """User and hash of the key that ends like this; None for one of another kind. KeyError for a hash that a
    later release has."""
    user, kind, name = path.split("/", 2)
    return (unquote(user), ScramHash[name]) if kind == "scram" else None


def credential_value(credential: ScramCredential) -> bytes:
    return keys.encode(
        {
            "salt": b64encode(credential.salt).decode(),
            "stored_key": b64encode(credential.stored_key).decode(),
            "server_key": b64encode(credential.server_key).decode(),
            "iterations": credential.iterations,
        }
    )


def credential_of(content: dict[str, Any]) -> ScramCredential:
    return ScramCredential(
        b64decode(content["salt"], validate=True),
        b64decode(content["stored_key"], validate=True),
        b64decode(content["server_key"], validate=True),
        int(content["iterations"]),
    )


def token_key(token_id: str) -> str:
    return keys.TOKENS + token_id


def token_value(token: DelegationToken) -> bytes:
    return keys.encode(
        {
            "owner": str(token.owner),
            "requester": str(token.requester),
            "renewers": [str(renewer) for renewer in token.renewers],
            "issued_ms": token.issued_ms,
            "expires_ms": token.expires_ms,
            "max_ms": token.max_ms,
        }
    )


def token_of(token_id: str, content: dict[str, Any]) -> DelegationToken:
    return DelegationToken(
        token_id,
        parse_principal(content["owner"]),
        parse_principal(content["requester"]),
        tuple(map(parse_principal, content["renewers"])),
        content["issued_ms"],
        content["expires_ms"],
        content["max_ms"],
    )


def quota_key(entity: Entity) -> str:
    return keys.QUOTAS + "/".join(
        f"{kind}={_DEFAULT if name is None else quote(name, safe='')}" for kind, name in entity.parts
    )


def entity_of(path: str) -> Entity:
    """The entity whose key ends like this."""
    names: dict[str, str | None] = {}
    for part in path.split("/"):
        kind, _, name = part.partition("=")
        names[kind] = None if name == _DEFAULT else unquote(name)
    return Entity.of(names)
