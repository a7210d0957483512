"""A broker for tests whose clients must show who they are, and may not do everything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ottla.config.security import STANDARD_AUTHORIZER
from ottla.extras import needed
from ottla.security.acl_bindings import (
    CLUSTER_NAME,
    WILDCARD,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.security.jaas import PLAIN_MODULE
from ottla.security.sasl.scram import ITERATIONS_MIN, NONCE_BYTES, ScramHash, credential_of, salt_of

if TYPE_CHECKING:
    from ottla.node import Node
    from ottla.security.authority import Authority

_LISTENER = "listener.name.plaintext."
_PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (True, False): "SSL",
    (False, True): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
PASSWORD_BYTES = 16


@dataclass(frozen=True, slots=True)
class Acl:
    """One rule: somebody may do something, or with ``deny`` may not.

    ``principal`` is ``User:alice``, or a name, or ``*`` for everybody. ``operation`` is Kafka's: read, write,
    create, describe, all, … One of ``topic``, ``group``, ``transactional_id`` names what it is about, ``*``
    all of them; without any it is the cluster. ``prefixed``: whatever has a name that begins like that.
    """

    principal: str
    operation: str
    topic: str | None = None
    group: str | None = None
    transactional_id: str | None = None
    prefixed: bool = False
    deny: bool = False
    host: str = WILDCARD

    def binding(self) -> AclBinding:
        """As Kafka has it. ValueError where there is no such operation, or more than one subject."""
        subjects = [
            (kind, name)
            for kind, name in (
                (ResourceType.TOPIC, self.topic),
                (ResourceType.GROUP, self.group),
                (ResourceType.TRANSACTIONAL_ID, self.transactional_id),
            )
            if name is not None
        ] or [(ResourceType.CLUSTER, CLUSTER_NAME)]
        if len(subjects) > 1:
            raise ValueError(f"{self}: an ACL is about one of topic, group and transactional_id")
        name = self.operation.upper().replace("-", "_")
        if name not in Operation.__members__:
            raise ValueError(f"{self}: there is no operation {self.operation!r}")
        principal = self.principal if ":" in self.principal else f"User:{self.principal}"
        ((kind, resource),) = subjects
        return AclBinding(
            kind,
            resource,
            PatternType.PREFIXED if self.prefixed else PatternType.LITERAL,
            principal,
            self.host,
            Operation[name],
            Permission.DENY if self.deny else Permission.ALLOW,
        )


class Security:
    """What a broker for tests asks of its clients: TLS, a login, rights; any of them, or none."""

    def __init__(
        self, *, tls: bool, users: Mapping[str, str] | None, acls: Iterable[Acl] | None, host: str
    ) -> None:
        self.users = None if users is None else dict(users)
        self._acls = None if acls is None else [acl.binding() for acl in acls]
        self._host = host
        # As whom nodes log in to each other, which makes them super users.
        self._own_password = (self.users or {}).get(_OWN) or os.urandom(PASSWORD_BYTES).hex()
        self._authority: Authority | None = None
        if tls:
            # cryptography takes a while to load.
            with needed("tls=True"):
                from ottla.security.authority import Authority

            self._authority = Authority("ottla tests")

    def properties(self, folder: Callable[[], Path]) -> dict[str, str]:
        """The broker's settings. Keys and certificates are written into ``folder``, where there are any."""
        protocol = _PROTOCOLS[self._authority is not None, self.users is not None]
        if protocol == "PLAINTEXT" and self._acls is None:
            return {}
        made = {"listener.security.protocol.map": f"PLAINTEXT:{protocol}"}
        if self._authority is not None:
            made |= self._tls(self._authority, folder())
        if self.users is not None:
            known = {_OWN: self._own_password} | self.users
            users = " ".join(f"{_quoted(f'user_{name}')}={_quoted(word)}" for name, word in known.items())
            own = f'username="{_OWN}" password={_quoted(self._own_password)}'
            made |= {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                f"{_LISTENER}plain.sasl.jaas.config": f"{PLAIN_MODULE} required {own} {users};",
            }
        if self._acls is not None:
            made["authorizer.class.name"] = STANDARD_AUTHORIZER
            if self._authority is not None and self.users is None:
                # The name in the certificate that nodes show each other.
                made["super.users"] = f"User:{_OWN}"
        return made

    def _tls(self, authority: Authority, folder: Path) -> dict[str, str]:
        # Once: other nodes of a cluster may be reading it.
        if not (folder / "ca.pem").exists():
            (folder / "ca.pem").write_bytes(authority.pem)
            (folder / "broker.pem").write_bytes(authority.issue(_OWN, (self._host, "localhost", "127.0.0.1")))
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(folder / "ca.pem"),
            "ssl.client.auth": "requested",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
        }

    async def found(self, node: Node) -> None:
        """Have the users and ACLs there, before the first client comes."""
        from ottla.metadata.access import CredentialChange, alter_credentials, create_acls

        controller = node.services.metadata.controller
        for hash in ScramHash:
            changes = [
                CredentialChange(
                    name,
                    hash,
                    credential_of(hash, word, salt_of(os.urandom(NONCE_BYTES)), ITERATIONS_MIN),
                )
                for name, word in (self.users or {}).items()
            ]
            if changes:
                await alter_credentials(controller, changes)
        if self._acls:
            await create_acls(controller, self._acls)

    def client_properties(
        self, folder: Callable[[], Path], user: str | None, mechanism: str
    ) -> dict[str, str]:
        """librdkafka's properties for a client: ``user`` logs in, or where there are no users shows a
        certificate of that name."""
        protocol = _PROTOCOLS[self._authority is not None, self.users is not None]
        made = {"security.protocol": protocol}
        if self._authority is not None:
            made["ssl.ca.location"] = str(folder() / "ca.pem")
        if self.users is not None:
            if user not in self.users:
                raise ValueError(f"user={user!r}: give one of {', '.join(map(repr, self.users))}")
            made |= {
                "sasl.mechanism": mechanism,
                "sasl.username": user,
                "sasl.password": self.users[user],
            }
        elif user is not None and self._authority is not None:
            file = folder() / f"client-{user.encode().hex()}.pem"
            if not file.exists():
                file.write_bytes(self._authority.issue(user))
            made |= {"ssl.certificate.location": str(file), "ssl.key.location": str(file)}
        return made


# The name of nodes among themselves.
_OWN = "broker"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
