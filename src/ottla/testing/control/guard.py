"""Who may use the control port (pure): programs on this machine, or programs that know its token.

A page in a browser may not, whichever site it is from: a browser sends Origin with whatever changes
something, a form cannot send JSON, and a name that was made to point to this machine (DNS rebinding) shows in
Host.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus

from ottla.observe.hosts import is_this_machine
from ottla.observe.request import Request
from ottla.testing.control.errors import JSON, ControlError, shown

TOKEN_LENGTH_MIN = 16
# Headers that browsers send and programs have no reason to.
_OF_BROWSERS = ("origin", "sec-fetch-site")
_BEARER = "bearer "


def check(request: Request, token: str | None) -> None:
    """ControlError where a request may not be answered. ``token``: what it must bring, if there is one."""
    for header in _OF_BROWSERS:
        if header in request.headers:
            raise ControlError(
                HTTPStatus.FORBIDDEN,
                "BROWSER_REFUSED",
                f"The request has the header {header}, so it comes from a page in a browser. The control "
                "port answers programs only.",
            )
    if token is not None:
        _check_token(request.headers.get("authorization", ""), token)
    elif not is_this_machine(host := request.headers.get("host", "")):
        raise ControlError(
            HTTPStatus.FORBIDDEN,
            "HOST_REFUSED",
            f"The header Host is {shown(host)}, which is no name of this machine only. Connect to 127.0.0.1 "
            "or localhost, or set a token with OTTLA_CONTROL_TOKEN.",
        )
    if request.method == "POST":
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != JSON:
            raise ControlError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "JSON_REQUIRED",
                f"The header Content-Type is {shown(kind)}. Send 'Content-Type: {JSON}' with every POST.",
            )


def _check_token(authorization: str, token: str) -> None:
    given = authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else ""
    if not hmac.compare_digest(given.strip().encode(errors="replace"), token.encode(errors="replace")):
        raise ControlError(
            HTTPStatus.UNAUTHORIZED,
            "TOKEN_REFUSED",
            "The control port has a token. Send it as 'Authorization: Bearer TOKEN'.",
            (("WWW-Authenticate", "Bearer"),),
        )
