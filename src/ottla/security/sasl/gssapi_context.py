"""Security contexts of the machine's Kerberos library. Imported only where GSSAPI is configured, since
python-gssapi (the extra ``gssapi``) needs that library.

A context reads the keytab, and the library keeps a file of what it has seen, against replays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import gssapi
from gssapi.exceptions import GSSError

from ottla.security.sasl.gssapi import GssContext, GssError

# CLIENT_NOTYET, TKT_NYV and REPEAT: those that Kafka's KerberosError has.
_KRB5: Final = 2529638912
_TRANSIENT: Final = frozenset({_KRB5 + 21, _KRB5 + 33, _KRB5 + 34})


def contexts(principal: str, keytab: str) -> Callable[[], GssContext]:
    """What makes contexts for a principal whose key is in a file. GssError where there is no such key."""
    try:
        credentials = gssapi.Credentials(
            usage="accept",
            name=gssapi.Name(principal, gssapi.NameType.kerberos_principal),
            store={"keytab": keytab},
        )
    except GSSError as error:
        raise _translated(error) from None
    return lambda: _Context(credentials)


def default_realm() -> str:
    """The machine's, which rules call DEFAULT; GssError where it has none."""
    try:
        name = gssapi.Name("nobody", gssapi.NameType.kerberos_principal)
        return str(name.canonicalize(gssapi.MechType.kerberos)).partition("@")[2]
    except GSSError as error:
        raise _translated(error) from None


@final
class _Context:
    __slots__ = ("_context",)

    def __init__(self, credentials: gssapi.Credentials) -> None:
        self._context = gssapi.SecurityContext(creds=credentials, usage="accept")
        # Errors are raised where they come up, not at the next call.
        self._context.__DEFER_STEP_ERRORS__ = False

    def step(self, token: bytes) -> bytes:
        try:
            return self._context.step(token) or b""
        except GSSError as error:
            raise _translated(error) from None

    @property
    def is_established(self) -> bool:
        return bool(self._context.complete)

    @property
    def initiator(self) -> str:
        try:
            return str(self._context.initiator_name)
        except GSSError as error:
            raise _translated(error) from None

    def wrap(self, message: bytes) -> bytes:
        try:
            return bytes(self._context.wrap(message, False).message)
        except GSSError as error:
            raise _translated(error) from None

    def unwrap(self, message: bytes) -> bytes:
        try:
            return bytes(self._context.unwrap(message).message)
        except GSSError as error:
            raise _translated(error) from None


def _translated(error: GSSError) -> GssError:
    return GssError(str(error), is_transient=error.min_code % 2**32 in _TRANSIENT)
