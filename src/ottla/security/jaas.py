"""``sasl.jaas.config``: one login module with its options, as Kafka's JaasConfig reads it.

``org.apache.kafka.….PlainLoginModule required username="admin" password="…" user_alice="…";``

Its words are those of Java's StreamTokenizer: letters, ``-_$`` and what is beyond ASCII, going on with digits
and dots; quotes of both kinds with C's escapes, which a line's end closes, too; comments from ``/`` to the
line's end and between ``/*`` and ``*/``. A value that begins with a digit or has other signs needs quotes.
Errors show nothing of what was written but the names that are known here, since anything else may be a piece
of a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ottla.security.secret import Secret

_KAFKA: Final = "org.apache.kafka.common.security"
PLAIN_MODULE: Final = f"{_KAFKA}.plain.PlainLoginModule"
SCRAM_MODULE: Final = f"{_KAFKA}.scram.ScramLoginModule"
OAUTHBEARER_MODULE: Final = f"{_KAFKA}.oauthbearer.OAuthBearerLoginModule"
KERBEROS_MODULE: Final = "com.sun.security.auth.module.Krb5LoginModule"
# Which module goes with which mechanism.
MODULES: Final = {
    "PLAIN": PLAIN_MODULE,
    "SCRAM-SHA-256": SCRAM_MODULE,
    "SCRAM-SHA-512": SCRAM_MODULE,
    "OAUTHBEARER": OAUTHBEARER_MODULE,
    "GSSAPI": KERBEROS_MODULE,
}
CONTROL_FLAGS: Final = frozenset({"required", "requisite", "sufficient", "optional"})
# What PlainLoginModule's options begin with that say a user's password.
USER_PREFIX: Final = "user_"

_SHOWN_NAMES: Final = frozenset((
    "clientId", "clientSecret", "doNotPrompt", "isInitiator", "keyTab", "password", "principal",
    "refreshKrb5Config", "scope", "serviceName", "storeKey", "tokenauth", "useKeyTab",
    "useTicketCache", "username",
))  # fmt: skip

_LINE_END: Final = re.compile("[\r\n]")
_WORD_SIGNS: Final = frozenset("-_$")
_NUMBER_SIGNS: Final = frozenset("0123456789.-")
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class JaasError(ValueError):
    """What is wrong with a JAAS configuration. There is no secret in it."""


class LoginModule(NamedTuple):
    """What is configured for one mechanism. Its options' values are all taken for secrets."""

    name: str
    control_flag: str
    options: Mapping[str, Secret]

    def option(self, name: str) -> str | None:
        value = self.options.get(name)
        return None if value is None else value.reveal()


class Login(NamedTuple):
    """As whom this node authenticates elsewhere."""

    username: str
    password: Secret
    # By a delegation token, whose id and HMAC these are.
    by_token: bool


class KerberosKey(NamedTuple):
    """As whom this node takes tickets, and the file that has its key."""

    principal: str
    keytab: str


class _Token(NamedTuple):
    # A word or what was between quotes; None for a number, and for any other sign, which `sign` is.
    text: str | None
    sign: str


def read_login_module(text: str, mechanism: str) -> LoginModule:
    """The one module that is configured for a mechanism. JaasError where there is another number of them, or
    it is another mechanism's."""
    modules = read_modules(text)
    if len(modules) != 1:
        raise JaasError(f"JAAS config property contains {len(modules)} login modules, should be 1 module")
    (module,) = modules
    expected = MODULES.get(mechanism)
    if module.name != expected:
        what = "that of another mechanism" if module.name in MODULES.values() else "not known here"
        raise JaasError(f"the login module is {what}; {mechanism} takes {expected}")
    return module


def read_modules(text: str) -> list[LoginModule]:
    """All that are in a configuration, of any name; there is at least one."""
    modules = []
    tokens = _tokens(text)
    for token in tokens:
        modules.append(_module(token, tokens))
    if not modules:
        raise JaasError("Login module not specified in JAAS config")
    return modules


def plain_users(module: LoginModule) -> dict[str, Secret]:
    """The users of PLAIN, by name."""
    return {
        name.removeprefix(USER_PREFIX): password
        for name, password in module.options.items()
        if name.startswith(USER_PREFIX)
    }


def login_of(module: LoginModule) -> Login | None:
    """As whom this node authenticates by PLAIN or SCRAM; None where the module says nothing of it."""
    username, password = module.option("username"), module.options.get("password")
    if username is None and password is None:
        return None
    if not username or not password:
        raise JaasError("username and password must be there together, and not be empty")
    return Login(username, password, (module.option("tokenauth") or "").lower() == "true")


def kerberos_key_of(module: LoginModule) -> KerberosKey:
    """What Krb5LoginModule says for a broker: useKeyTab=true, keyTab and principal."""
    keytab, principal = module.option("keyTab"), module.option("principal")
    if (module.option("useKeyTab") or "").lower() != "true" or not keytab or not principal:
        raise JaasError("a broker's Krb5LoginModule needs useKeyTab=true, keyTab and principal")
    return KerberosKey(principal, keytab)


def _module(first: _Token, tokens: Iterator[_Token]) -> LoginModule:
    if not first.text:
        raise JaasError("a login module must begin with the name of its class")
    flag = next(tokens, None)
    if flag is None:
        raise JaasError("Login module control flag not specified in JAAS config")
    if flag.text is None or flag.text.lower() not in CONTROL_FLAGS:
        raise JaasError("Invalid login module control flag in JAAS config: it is required or the like")
    options: dict[str, Secret] = {}
    for token in tokens:
        if token.sign == ";":
            return LoginModule(first.text, flag.text.lower(), options)
        number = len(options) + 1
        if token.text is None:
            raise JaasError(f"option {number} has no name in JAAS config: what is no plain word needs quotes")
        equals = next(tokens, None)
        value = next(tokens, None) if equals is not None and equals.sign == "=" else None
        if value is None or value.text is None:
            raise JaasError(
                f"Value not specified for key {_shown(token.text, number)} in JAAS config:"
                " what is no plain word needs quotes"
            )
        options[token.text] = Secret(value.text)
    raise JaasError("JAAS config entry not terminated by semi-colon")


def _shown(name: str, number: int) -> str:
    return f"'{name}'" if name in _SHOWN_NAMES else f"number {number}"


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        c = text[at]
        if c <= " ":
            at += 1
        elif c == "/":
            at = _behind_comment(text, at)
        elif c in _NUMBER_SIGNS:
            end = _behind_number(text, at)
            yield _Token(None, "-" if end is None else "0")
            at = at + 1 if end is None else end
        elif _in_word(c):
            end = at + 1
            while end < len(text) and (_in_word(text[end]) or text[end] in _NUMBER_SIGNS):
                end += 1
            yield _Token(text[at:end], "")
            at = end
        elif c in "\"'":
            value, at = _quoted(text, at)
            yield _Token(value, c)
        else:
            yield _Token(None, c)
            at += 1


def _in_word(c: str) -> bool:
    return (c.isascii() and c.isalpha()) or c in _WORD_SIGNS or c >= "\xa0"


def _behind_number(text: str, at: int) -> int | None:
    """Where a number ends; None for a minus that begins none."""
    end = at
    if text[end] == "-":
        end += 1
        if end == len(text) or text[end] not in "0123456789.":
            return None
    dots = 0
    while end < len(text) and (text[end] in "0123456789" or (text[end] == "." and not dots)):
        dots += text[end] == "."
        end += 1
    return end


def _behind_comment(text: str, at: int) -> int:
    """A slash begins one, whatever follows: also where that is the end of its line."""
    if text.startswith("/*", at):
        end = text.find("*/", at + 2)
        return len(text) if end < 0 else end + 2
    end_of_line = _LINE_END.search(text, at + 2)
    return len(text) if end_of_line is None else end_of_line.start()


def _quoted(text: str, at: int) -> tuple[str, int]:
    """What is between quotes, and where it goes on behind them."""
    quote = text[at]
    at += 1
    found: list[str] = []
    while at < len(text) and text[at] not in "\r\n":
        c = text[at]
        at += 1
        if c == quote:
            break
        if c == "\\" and at < len(text):
            c, at = _escaped(text, at)
        found.append(c)
    return "".join(found), at


def _escaped(text: str, at: int) -> tuple[str, int]:
    """The sign that follows a backslash, and where it goes on behind it."""
    c = text[at]
    if c not in "01234567":
        return _ESCAPES.get(c, c), at + 1
    # As far as \377.
    end = at + 1
    while end < len(text) and end - at < (3 if c <= "3" else 2) and text[end] in "01234567":
        end += 1
    return chr(int(text[at:end], 8)), end
