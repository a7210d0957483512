"""`ottla token`: delegation tokens (KIP-48), as kafka-delegation-tokens.sh makes, renews and ends them."""

from __future__ import annotations

import binascii
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Any, NamedTuple

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, duration_ms
from ottla.cli.positions import format_time
from ottla.cli.security.resources import principal_of
from ottla.cli.values import shown
from ottla.errors import ErrorCode
from ottla.security.principals import parse_principal

app = typer.Typer(
    no_args_is_help=True, help="Make, renew and end delegation tokens, by which programs log in."
)

# Kafka's word for: as long as the broker lets it be; and for a token's end: at once.
AS_THE_BROKER_SAYS = AT_ONCE = -1
# The first version of CreateDelegationToken that names an owner (KIP-373).
OWNER_VERSION = 3

# What to do about an error: these answers have a code alone.
ADVICE = {
    ErrorCode.delegation_token_request_not_allowed: (
        "tokens are for who has logged in, or shown a certificate, on this connection, and not by a token: "
        "give -X security.protocol=SASL_SSL and so on"
    ),
    ErrorCode.delegation_token_auth_disabled: (
        "there are no tokens here: set delegation.token.secret.key, the same on all nodes, and restart them"
    ),
    ErrorCode.delegation_token_authorization_failed: (
        "tokens for somebody else take the right to it: "
        "'ottla acl add WHO --operation create-tokens --user-principal OWNER'"
    ),
    ErrorCode.delegation_token_not_found: "there is no such token; see 'ottla token list'",
    ErrorCode.delegation_token_expired: "it has ended; make another",
    ErrorCode.delegation_token_owner_mismatch: "only its owner and its renewers may do that",
    ErrorCode.invalid_principal_type: "owners and renewers are users, such as User:alice",
}

IdArgument = Annotated[str | None, typer.Argument(metavar="[ID]", help="The token's id.")]
HmacOption = Annotated[
    str | None,
    typer.Option(
        "--hmac",
        metavar="HMAC",
        help="Its HMAC, in place of its id. Whoever sees this command line can log in by it.",
    ),
]


class Token(NamedTuple):
    """What is shown of one."""

    token_id: str
    hmac: bytes
    owner: str
    requester: str
    renewers: tuple[str, ...]
    issued_ms: int
    expires_ms: int
    max_ms: int


@app.command()
@examples(
    ("ottla token create", "Create a token for the user who logs in."),
    (
        "ottla token create --renewer User:scheduler --max-lifetime 7d",
        "Create a token that another user may renew, for seven days at most.",
    ),
)
def create(
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            metavar="PRINCIPAL",
            show_default="the user who asks for it",
            help="The user that it stands for, such as User:alice.",
        ),
    ] = None,
    renewer: Annotated[
        list[str] | None,
        typer.Option("--renewer", metavar="PRINCIPAL", help="Who else may renew and end it. Repeatable."),
    ] = None,
    max_lifetime: Annotated[
        int | None,
        typer.Option(
            "--max-lifetime",
            metavar="TIME",
            parser=duration_ms(1),
            show_default="delegation.token.max.lifetime.ms of the broker, which is the most",
            help="The time after which it ends for good: 12h, 7d, or milliseconds.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Make a token, and show its HMAC, which is as good as a password.

    Who logs in by it is its owner: by SCRAM, with its id for a name, the HMAC for a password, and
    tokenauth=true.
    """
    for_whom = None if owner is None else parse_principal(principal_of(owner))
    fields = {
        "owner_principal_type": None if for_whom is None else for_whom.type,
        "owner_principal_name": None if for_whom is None else for_whom.name,
        "renewers": _principals(renewer),
        "max_lifetime_ms": AS_THE_BROKER_SAYS if max_lifetime is None else max_lifetime,
    }
    with closing(DirectCluster(bootstrap, property)) as brokers:
        # Asked twice, where a broker goes away, it makes two: the other ends by itself.
        answer = brokers.ask(
            "CreateDelegationToken", fields, version_min=0 if for_whom is None else OWNER_VERSION
        )
    _check(answer.error_code, "a token")
    made = Token(
        answer.token_id,
        bytes(answer.hmac),
        f"{answer.principal_type}:{answer.principal_name}",
        _requester(answer),
        tuple(map(principal_of, renewer or ())),
        answer.issue_timestamp_ms,
        answer.expiry_timestamp_ms,
        answer.max_timestamp_ms,
    )
    if json:
        output.print_json(_json(made, with_hmac=True))
    else:
        output.table(_columns(with_hmac=True), [_row(made, with_hmac=True)])


@app.command(name="list")
@examples(
    ("ottla token list", "List the tokens that the user may see."),
    ("ottla token list --owner User:alice --json", "List the tokens of one user as JSON."),
)
def list_(
    owner: Annotated[
        list[str] | None,
        typer.Option("--owner", metavar="PRINCIPAL", help="Only those that this principal has. Repeatable."),
    ] = None,
    show_hmac: Annotated[
        bool, typer.Option("--show-hmac", help="Show their HMACs, too, which are as good as passwords.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List tokens: one's own, those that one may renew, and others that one may see."""
    owners = None if owner is None else _principals(owner)
    with closing(DirectCluster(bootstrap, property)) as brokers:
        found = _described(brokers, owners)
    found.sort(key=lambda token: (token.owner, token.issued_ms, token.token_id))
    none = "no tokens" + (" that match" if owners else " that you may see")
    documents = [_json(token, with_hmac=show_hmac) for token in found]
    rows = [_row(token, with_hmac=show_hmac) for token in found]
    output.listing(documents, _columns(with_hmac=show_hmac), rows, json, none=none)


@app.command()
@examples(
    ("ottla token renew TOKEN-ID --period 12h", "Let a token be valid for twelve hours from now."),
    ("ottla token renew --hmac HMAC", "Name the token by its HMAC."),
)
def renew(
    token: IdArgument = None,
    hmac: HmacOption = None,
    period: Annotated[
        int | None,
        typer.Option(
            "--period",
            metavar="TIME",
            parser=duration_ms(1),
            show_default="delegation.token.expiry.time.ms of the broker, which is the most",
            help="The time that it lasts from now on: 12h, 7d, or milliseconds.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Have a token last longer, but not for longer than it may live."""
    with closing(DirectCluster(bootstrap, property)) as brokers:
        secret = _hmac(brokers, token, hmac)
        period_ms = AS_THE_BROKER_SAYS if period is None else period
        answer = brokers.ask("RenewDelegationToken", {"hmac": secret, "renew_period_ms": period_ms})
    _check(answer.error_code, _named(token))
    _say_done(token, "renewed", answer.expiry_timestamp_ms, json)


@app.command()
@examples(
    ("ottla token expire TOKEN-ID", "End a token at once."),
    ("ottla token expire TOKEN-ID --after 1h", "End a token in an hour."),
)
def expire(
    token: IdArgument = None,
    hmac: HmacOption = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after",
            metavar="TIME",
            parser=duration_ms(0),
            help="Not at once, but then: 12h, or milliseconds.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Have a token end, at once or after a time. Who has logged in by it stays in until it disconnects."""
    with closing(DirectCluster(bootstrap, property)) as brokers:
        secret = _hmac(brokers, token, hmac)
        period_ms = AT_ONCE if after is None else after
        answer = brokers.ask("ExpireDelegationToken", {"hmac": secret, "expiry_time_period_ms": period_ms})
    _check(answer.error_code, _named(token))
    _say_done(token, "ended" if after is None else "ends", answer.expiry_timestamp_ms, json)


# Requests -----------------------------------------------


def _principals(names: Sequence[str] | None) -> list[dict[str, str]]:
    parsed = [parse_principal(principal_of(name)) for name in names or ()]
    return [{"principal_type": one.type, "principal_name": one.name} for one in parsed]


def _described(brokers: DirectCluster, owners: list[dict[str, str]] | None) -> list[Token]:
    answer = brokers.ask("DescribeDelegationToken", {"owners": owners})
    _check(answer.error_code, "tokens")
    return [
        Token(
            one.token_id,
            bytes(one.hmac),
            f"{one.principal_type}:{one.principal_name}",
            _requester(one),
            tuple(f"{each.principal_type}:{each.principal_name}" for each in one.renewers),
            one.issue_timestamp,
            one.expiry_timestamp,
            one.max_timestamp,
        )
        for one in answer.tokens
    ]


def _requester(answer: Any) -> str:
    """Who asked for a token; before version 3 that was its owner."""
    kind = getattr(answer, "token_requester_principal_type", None) or answer.principal_type
    name = getattr(answer, "token_requester_principal_name", None) or answer.principal_name
    return f"{kind}:{name}"


def _hmac(brokers: DirectCluster, token_id: str | None, hmac: str | None) -> bytes:
    """By which a token is named in requests; that of an id is looked up."""
    if (token_id is None) is (hmac is None):
        output.fail_usage("give either the token's id or its --hmac")
    if hmac is not None:
        try:
            return b64decode(hmac, validate=True)
        except (binascii.Error, ValueError):
            # It may be nearly right, and so is not shown.
            output.fail_usage("--hmac: give it as 'ottla token create' shows it, in base 64")
    for one in _described(brokers, None):
        if one.token_id == token_id:
            return one.hmac
    raise CliError(
        f"{_named(token_id)}: there is none that you may see; see 'ottla token list'", ExitCode.NOT_FOUND
    )


def _check(error_code: int, what: str) -> None:
    if error_code:
        advice = next((text for code, text in ADVICE.items() if code == error_code), error_name(error_code))
        missing = error_code == ErrorCode.delegation_token_not_found
        raise CliError(f"{what}: {advice}", ExitCode.NOT_FOUND if missing else ExitCode.FAILED)


# Words --------------------------------------------------


def _named(token_id: str | None) -> str:
    return "the token" if token_id is None else f"token {shown(token_id)}"


def _json(token: Token, *, with_hmac: bool) -> dict[str, Any]:
    document = {name: value for name, value in token._asdict().items() if name != "hmac"}
    return document | ({"hmac": _base64(token)} if with_hmac else {})


def _base64(token: Token) -> str:
    return b64encode(token.hmac).decode()


def _columns(*, with_hmac: bool) -> tuple[str, ...]:
    columns = ("token", "owner", "requester", "renewers", "issued", "ends", "at the latest")
    return (*columns, "hmac") if with_hmac else columns


def _row(token: Token, *, with_hmac: bool) -> tuple[str | None, ...]:
    return (
        token.token_id,
        token.owner,
        token.requester,
        ",".join(token.renewers) or None,
        *map(format_time, (token.issued_ms, token.expires_ms, token.max_ms)),
        *([_base64(token)] if with_hmac else ()),
    )


def _say_done(token_id: str | None, what: str, expires_ms: int, json: bool) -> None:
    if what == "ended" or expires_ms <= time.time() * 1000:
        line = "ended"
    else:
        line = f"{'ends' if what == 'ends' else 'renewed until'} {format_time(expires_ms)}"
    document = {"token_id": token_id, "result": what, "expires_ms": expires_ms}
    output.say_done(document, [f"{_named(token_id)}: {line}"], json)
