"""A broker that clients of all kinds log in to: by each mechanism over TLS, by certificates, by tokens.

What there is for them: ``alice``, who may use topics and groups with names that begin with ``t-``,
``mallory``, who may do nothing, and ``admin``, a super user. All have passwords for PLAIN and SCRAM, tokens
and certificates.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from interop.process import BrokerProcess
from ottla.cli.local.ports import free_ports
from ottla.config.security import STANDARD_AUTHORIZER, UNSECURED_VALIDATOR
from ottla.security.authority import Authority

TIMEOUT_S = 60
PASSWORDS = {"alice": "wonderland", "mallory": "sesame", "admin": "for nodes"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
ISSUER, AUDIENCE = "https://login.example.org", "kafka"
# Each has a topic of its own.
CLIENTS = ("kcat", "kafka-python", "kafkajs", "platformatic", "java")
_PREFIX = "t-"


@dataclass(frozen=True)
class Login:
    """How a client comes in; ``user`` is who it is then, where it is let in."""

    user: str
    mechanism: str | None
    password: str | None = None
    token: str | None = None

    @property
    def protocol(self) -> str:
        return "SSL" if self.mechanism is None else "SASL_SSL"


class SecuredBroker:
    """Use it as a context. ``folder`` has ca.pem, and NAME.pem for each user: its key and its certificate;
    stranger.pem is of another authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority("ottla tests")
        self.file("ca").write_bytes(authority.pem)
        self.file("broker").write_bytes(authority.issue("broker", ("127.0.0.1", "localhost")))
        for name in PASSWORDS:
            self.file(name).write_bytes(authority.issue(name))
        self.file("stranger").write_bytes(Authority("others").issue("alice"))
        self._key, self._other_key = (ECKey.generate_key("P-256", {"kid": "key"}) for _ in range(2))
        (folder / "jwks.json").write_text(json.dumps(KeySet([self._key]).as_dict()))
        self._ports = dict(zip(("UNSIGNED", "SSL"), free_ports(2), strict=True))
        self.process = BrokerProcess(folder / "broker-process", self._settings())

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def bootstrap(self, mechanism: str | None) -> str:
        """The listener for a mechanism; None: for certificates, ``UNSIGNED``: for tokens of anybody's."""
        if mechanism == "UNSIGNED":
            return f"127.0.0.1:{self._ports['UNSIGNED']}"
        return f"127.0.0.1:{self._ports['SSL']}" if mechanism is None else self.process.bootstrap

    def token(self, user: str, *, forged: bool = False) -> str:
        """What the provider of tokens gives a user; ``forged``: what somebody else does."""
        now = int(time.time())
        claims = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "iat": now - 10, "exp": now + 3_600}
        key = self._other_key if forged else self._key
        return jwt.encode({"alg": "ES256", "kid": "key"}, claims, key, algorithms=["ES256"])

    def login(self, user: str, mechanism: str | None, *, wrong: bool = False) -> Login:
        """``wrong``: with a wrong password or a forged token."""
        if mechanism == "OAUTHBEARER":
            return Login(user, mechanism, token=self.token(user, forged=wrong))
        return Login(user, mechanism, mechanism and ("wrong" if wrong else PASSWORDS[user]))

    def _settings(self) -> dict[str, str]:
        users = " ".join(f'user_{name}="{word}"' for name, word in PASSWORDS.items())
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
        unsigned = "listener.name.unsigned.oauthbearer.sasl"
        listeners = [f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()]
        return {
            "listeners": ",".join(["SASL_SSL://127.0.0.1:0", *listeners]),
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,UNSIGNED:SASL_SSL,SSL:SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{plain} username="admin" password="{PASSWORDS["admin"]}" {users};'
            ),
            "sasl.oauthbearer.jwks.endpoint.url": (self.folder / "jwks.json").as_uri(),
            "sasl.oauthbearer.expected.issuer": ISSUER,
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "listener.name.unsigned.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{unsigned}.server.callback.handler.class": UNSECURED_VALIDATOR,
            f"{unsigned}.jaas.config": f"{bearer};",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.file("broker")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.file("ca")),
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": STANDARD_AUTHORIZER,
            "super.users": "User:admin",
            "delegation.token.secret.key": "what tokens are made with",
        }

    def __enter__(self) -> SecuredBroker:
        self.process.start()
        try:
            self._found()
        except BaseException:
            self.process.kill()
            raise
        return self

    def _found(self) -> None:
        """Have its users, their rights and topics there."""
        admin = AdminClient(self.librdkafka(self.login("admin", "PLAIN")))
        # A request may change one credential of a user.
        credentials = [
            admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(name, ScramCredentialInfo(hash, 4_096), word.encode())
                    for name, word in PASSWORDS.items()
                ]
            )
            for hash in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        acls = [
            AclBinding(
                kind,
                _PREFIX,
                ResourcePatternType.PREFIXED,
                "User:alice",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for kind, operation in (
                (ResourceType.TOPIC, AclOperation.WRITE),
                (ResourceType.TOPIC, AclOperation.READ),
                (ResourceType.GROUP, AclOperation.READ),
            )
        ]
        made: list[dict[Any, Any]] = [
            *credentials,
            admin.create_acls(acls),
            admin.create_topics([NewTopic(f"{_PREFIX}{name}", 1, 1) for name in CLIENTS]),
        ]
        for each in made:
            for future in each.values():
                future.result(TIMEOUT_S)

    def __exit__(self, *failure: object) -> None:
        self.process.__exit__(*failure)

    def librdkafka(self, login: Login) -> dict[str, str]:
        """Its properties; a token goes another way."""
        made = {
            "bootstrap.servers": self.bootstrap(login.mechanism),
            "security.protocol": login.protocol,
            "ssl.ca.location": str(self.file("ca")),
        }
        if login.mechanism is None:
            pem = str(self.file(login.user))
            return made | {"ssl.certificate.location": pem, "ssl.key.location": pem}
        made["sasl.mechanism"] = login.mechanism
        if login.password is not None:
            made |= {"sasl.username": login.user, "sasl.password": login.password}
        return made
