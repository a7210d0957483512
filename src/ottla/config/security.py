"""Security configurations that brokers act on: who clients are, and what they may do.

Kafka's ``BrokerSecurityConfigs``, ``SaslConfigs`` and ``DelegationTokenManagerConfigs``, and what
``StandardAuthorizer`` reads. Each listener may have values of its own (``listener_settings``).
"""

from __future__ import annotations

from ottla.config.definition import (
    ConfigType,
    Definition,
    ListCheck,
    Mode,
    Rule,
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

# Of Kafka's classes that check tokens, what they do is done here by these names.
_OAUTHBEARER = "org.apache.kafka.common.security.oauthbearer."
SIGNED_VALIDATOR = _OAUTHBEARER + "OAuthBearerValidatorCallbackHandler"
UNSECURED_VALIDATOR = _OAUTHBEARER + "internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"


def _row(
    name: str,
    type: ConfigType,
    default: object,
    importance: str,
    doc: str,
    check: Rule | None = None,
    mode: Mode = Mode.READ_ONLY,
) -> Definition:
    return Definition(name, type, default, importance, doc, check, mode)


_NODES = (
    _row(
        "security.inter.broker.protocol", _STRING, "PLAINTEXT", MEDIUM,
        "The listener that nodes use among themselves, by its protocol, which then is its name, too; not "
        "together with inter.broker.listener.name.",
        one_of(*PROTOCOLS),
    ),
    _row(
        "sasl.mechanism.inter.broker.protocol", _STRING, "GSSAPI", MEDIUM,
        "The mechanism by which nodes log in to each other; one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512.",
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
        "How long a client whose login failed waits for the answer that says so.", at_least(0),
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
        "Take tokens for whatever audience, where sasl.oauthbearer.expected.audience is empty.",
    ),
    _row(
        "sasl.oauthbearer.allow.unverified.issuer", _BOOLEAN, False, MEDIUM,
        "Take tokens of whatever issuer, where sasl.oauthbearer.expected.issuer is not set.",
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
        "Where the keys are by which tokens are verified: a file:// or https:// address of a JWKS.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms", _LONG, 3_600_000, LOW,
        "Time between two looks at these keys.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", _LONG, 100, LOW,
        "First wait before another look, when one failed.",
    ),
    _row(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", _LONG, 10_000, LOW,
        "Longest wait before another look, when some failed.",
    ),
    _row(
        "sasl.oauthbearer.scope.claim.name", _STRING, "scope", LOW, "The claim of a token that has its scope."
    ),
    _row(
        "sasl.oauthbearer.sub.claim.name", _STRING, "sub", LOW,
        "The claim of a token that has the user's name.",
    ),
)  # fmt: skip

_TOKENS = (
    _row(
        "delegation.token.expiry.check.interval.ms", _LONG, 3_600_000, LOW,
        "How often tokens that have ended are removed.", at_least(1),
    ),
    _row(
        "delegation.token.expiry.time.ms", _LONG, 86_400_000, MEDIUM,
        "How long a token lasts that nobody renews.", at_least(1),
    ),
    _row(
        "delegation.token.max.lifetime.ms", _LONG, 604_800_000, MEDIUM,
        "How long a token lasts at the most.", at_least(1),
    ),
    _row(
        "delegation.token.secret.key", _PASSWORD, None, MEDIUM,
        "What tokens are made with, the same on all nodes; without it there are none.",
    ),
)  # fmt: skip

_RIGHTS = (
    _row(
        "authorizer.class.name", _STRING, "", LOW,
        f"Who decides what clients may do: {STANDARD_AUTHORIZER}, which goes by ACLs. Without it everybody "
        "may do everything.",
        one_of("", STANDARD_AUTHORIZER),
    ),
    _row(
        "super.users", _STRING, "", LOW,
        "Who may do everything, whatever ACLs say: principals such as User:admin, with semicolons between "
        "them.",
    ),
    _row(
        "allow.everyone.if.no.acl.found", _BOOLEAN, False, LOW,
        "Let everybody do with a resource what they like, where no ACL is about it.",
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

SECURITY = table(*_NODES, *_SASL, *_OAUTH, *_TOKENS, *_RIGHTS, *_QUOTAS)
