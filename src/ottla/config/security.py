"""Security configurations that brokers act on: who clients are, and what they may do.

Kafka's ``BrokerSecurityConfigs``, ``SaslConfigs`` and ``DelegationTokenManagerConfigs``, and what
``StandardAuthorizer`` reads. Each listener may have values of its own (``listener_settings``).
"""

from __future__ import annotations

from ottla.config.definition import (
    Check,
    ConfigType,
    Definition,
    ListCheck,
    Mode,
    at_least,
    one_of,
    table,
)
from ottla.config.listeners import PROTOCOLS

HIGH, MEDIUM, LOW = "high", "medium", "low"
_BOOLEAN, _STRING, _INT, _LONG = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.LONG
_LIST, _PASSWORD, _CLASS = ConfigType.LIST, ConfigType.PASSWORD, ConfigType.CLASS
_PER_BROKER = Mode.PER_BROKER

# The one authorizer that there is, by the name of Kafka's.
STANDARD_AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"


def _authorizer_fault(name: str) -> str | None:
    if name in ("", STANDARD_AUTHORIZER):
        return None
    return f"Java classes cannot be run; for ACLs, also those of older Kafkas, say {STANDARD_AUTHORIZER}"


# Of Kafka's classes that check tokens, what they do is done here by these names.
_OAUTHBEARER = "org.apache.kafka.common.security.oauthbearer."
SIGNED_VALIDATOR = _OAUTHBEARER + "OAuthBearerValidatorCallbackHandler"
UNSECURED_VALIDATOR = _OAUTHBEARER + "internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"


_row = Definition

_NODES = (
    _row(
        "security.inter.broker.protocol", _STRING, "PLAINTEXT", MEDIUM,
        "The listener that nodes use among themselves, by its protocol, which then is its name, too; not "
        "together with inter.broker.listener.name.",
        one_of(*PROTOCOLS),
    ),
    _row(
        "sasl.mechanism.inter.broker.protocol", _STRING, "GSSAPI", MEDIUM,
        "The mechanism by which nodes log in to each other; one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, "
        "OAUTHBEARER.",
        None, _PER_BROKER,
    ),
)  # fmt: skip

_SASL = (
    _row(
        "sasl.enabled.mechanisms", _LIST, ("GSSAPI",), MEDIUM,
        "How clients may log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI.",
        ListCheck(), _PER_BROKER,
    ),
    _row(
        "sasl.jaas.config", _PASSWORD, None, MEDIUM,
        "The login module of a mechanism with its options, given as listener.name.NAME.MECHANISM."
        "sasl.jaas.config: users and passwords of PLAIN (user_alice=\"…\"), and as whom this node logs in to "
        "others (username, password).",
        None, _PER_BROKER,
    ),
    _row(
        "connection.failed.authentication.delay.ms", _INT, 100, LOW,
        "Delay of the answer to a failed login.", at_least(0),
    ),
    _row(
        "connections.max.reauth.ms", _LONG, 0, MEDIUM,
        "How long a client may go on before it must log in again; 0: as long as it likes. Also by mechanism, "
        "as listener.name.NAME.MECHANISM.connections.max.reauth.ms.",
    ),
    _row(
        "sasl.server.max.receive.size", _INT, 524288, MEDIUM,
        "Largest request of a client that is not logged in.",
    ),
    _row(
        "sasl.kerberos.principal.to.local.rules", _LIST, ("DEFAULT",), MEDIUM,
        "How Kerberos principals become the names of users.", ListCheck(), _PER_BROKER,
    ),
    _row(
        "sasl.kerberos.service.name", _STRING, None, MEDIUM,
        "The service's name in this broker's Kerberos principal.", None, _PER_BROKER,
    ),
)  # fmt: skip

_USERS = (
    _row(
        "ottla.users", _PASSWORD, None, MEDIUM,
        "Users of PLAIN with their passwords, as alice:secret,bob:another; beside those of sasl.jaas.config, "
        "if any. Where a password has a comma, or users are many, take ottla.users.file.",
        None, _PER_BROKER,
    ),
    _row(
        "ottla.users.file", _STRING, None, MEDIUM,
        "A file with users of PLAIN, in each line NAME:PASSWORD; read again when it changes. Of a user who "
        "is in ottla.users, too, the password there counts.",
        None, _PER_BROKER,
    ),
    _row(
        "ottla.node.user", _STRING, None, MEDIUM,
        "As whom nodes log in to each other: one of ottla.users or ottla.users.file, where the password is. "
        "In place of username and password in sasl.jaas.config.",
    ),
)  # fmt: skip

_OAUTH = (
    _row(
        "sasl.server.callback.handler.class", _CLASS, None, MEDIUM,
        "Which tokens OAUTHBEARER takes: those that a key of the provider's has signed, by default and with "
        f"{SIGNED_VALIDATOR}; with {UNSECURED_VALIDATOR} those that nobody has signed, to try it out. "
        "Given as listener.name.NAME.oauthbearer.sasl.server.callback.handler.class.",
        one_of(SIGNED_VALIDATOR, UNSECURED_VALIDATOR),
    ),
    _row(
        "sasl.oauthbearer.allow.unverified.audience", _BOOLEAN, False, MEDIUM,
        "Accept tokens of every audience if sasl.oauthbearer.expected.audience is empty.",
    ),
    _row(
        "sasl.oauthbearer.allow.unverified.issuer", _BOOLEAN, False, MEDIUM,
        "Accept tokens of every issuer if sasl.oauthbearer.expected.issuer is not set.",
    ),
    _row(
        "sasl.oauthbearer.client.credentials.client.id", _STRING, None, MEDIUM,
        "Client id with which this node asks for its token.",
    ),
    _row(
        "sasl.oauthbearer.client.credentials.client.secret", _PASSWORD, None, MEDIUM,
        "The secret that goes with it.",
    ),
    _row(
        "sasl.oauthbearer.clock.skew.seconds", _INT, 30, LOW,
        "Difference between the issuer's clock and ours that is tolerated.",
    ),
    _row(
        "sasl.oauthbearer.expected.audience", _LIST, (), LOW, "Audiences that tokens may be for.",
        ListCheck(),
    ),
    _row("sasl.oauthbearer.expected.issuer", _STRING, None, LOW, "The issuer that tokens must come from."),
    _row(
        "sasl.oauthbearer.jwks.endpoint.url", _STRING, None, MEDIUM,
        "Address of the keys that verify tokens: a JWKS at file:// or https://.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms", _LONG, 3_600_000, LOW,
        "Time between two looks at sasl.oauthbearer.jwks.endpoint.url.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", _LONG, 100, LOW,
        "First wait before another look at the keys, when one failed.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", _LONG, 10_000, LOW,
        "Longest wait before another look at the keys, when some failed.",
    ),
    _row("sasl.oauthbearer.scope", _STRING, None, MEDIUM, "The scope of this node's own token."),
    _row(
        "sasl.oauthbearer.scope.claim.name", _STRING, "scope", LOW, "The claim of a token that has its scope."
    ),
    _row(
        "sasl.oauthbearer.sub.claim.name", _STRING, "sub", LOW,
        "The claim of a token that has the user's name.",
    ),
    _row(
        "sasl.oauthbearer.token.endpoint.url", _STRING, None, MEDIUM,
        "Where this node's own token is: a file:// address of it, or an https:// address of a "
        "provider that gives one for the client's id and secret.",
    ),
)  # fmt: skip

_TOKENS = (
    _row(
        "delegation.token.expiry.check.interval.ms", _LONG, 3_600_000, LOW,
        "How often tokens that have ended are removed.", at_least(1),
    ),
    _row(
        "delegation.token.expiry.time.ms", _LONG, 86_400_000, MEDIUM,
        "Lifetime of a token that is not renewed.", at_least(1),
    ),
    _row(
        "delegation.token.max.lifetime.ms", _LONG, 604_800_000, MEDIUM,
        "How long a token lasts at the most.", at_least(1),
    ),
    _row(
        "delegation.token.secret.key", _PASSWORD, None, MEDIUM,
        "Secret with which tokens are made, the same on all nodes. Without it there are no tokens.",
    ),
)  # fmt: skip

_RIGHTS = (
    _row(
        "authorizer.class.name", _STRING, "", LOW,
        f"Who decides what clients may do: {STANDARD_AUTHORIZER}, which goes by ACLs. Without it everybody "
        "may do everything.",
        Check(f"[, {STANDARD_AUTHORIZER}]", _authorizer_fault),
    ),
    _row(
        "super.users", _STRING, "", LOW,
        "Principals that may do everything without an ACL, such as User:admin, separated by semicolons.",
    ),
    _row(
        "allow.everyone.if.no.acl.found", _BOOLEAN, False, LOW,
        "Allow everything on resources that have no ACL.",
    ),
)  # fmt: skip

_QUOTAS = (
    _row("quota.window.num", _INT, 11, LOW, "Samples kept of clients' rates, for quotas.", at_least(1)),
    _row("quota.window.size.seconds", _INT, 1, LOW, "Length of each such sample.", at_least(1)),
    _row(
        "controller.quota.window.num", _INT, 11, LOW,
        "Samples kept of the rate at which clients make and delete partitions.", at_least(1),
    ),
    _row("controller.quota.window.size.seconds", _INT, 1, LOW, "Length of each such sample.", at_least(1)),
)  # fmt: skip

SECURITY = table(*_NODES, *_SASL, *_USERS, *_OAUTH, *_TOKENS, *_RIGHTS, *_QUOTAS)
