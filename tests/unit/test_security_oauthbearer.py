"""OAUTHBEARER: messages as in RFC 7628, and tokens that a provider has signed, or has not."""

from __future__ import annotations

import hmac
import json
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws
from joserfc.errors import SecurityWarning
from kafka.net.sasl.oauth import AbstractTokenProvider, SaslMechanismOAuth
from security_support import NOW_MS, authenticate, go_through, handshake, machine

from measuring import cpu_at_most
from ottla.security.principals import user
from ottla.security.sasl.client import OAuthBearerClient, ServerRefused
from ottla.security.sasl.json_objects import read_object
from ottla.security.sasl.jwt import KEYS_MAX, Jwks, JwksError, JwtSettings, JwtValidator
from ottla.security.sasl.machine import Authenticated, Failed, Reply
from ottla.security.sasl.mechanism import Done, Invalid, Refused
from ottla.security.sasl.oauthbearer import BearerToken, InvalidToken, OAuthBearerMechanism
from ottla.security.sasl.unsecured_jwt import UnsecuredSettings, UnsecuredValidator, settings_of
from ottla.security.secret import Secret

NOW = NOW_MS // 1000
CLAIMS: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": "kafka",
    "sub": "alice",
    "iat": NOW,
    "exp": NOW + 300,
}
SETTINGS = JwtSettings(frozenset({"kafka", "other"}), "https://id.example")


@cache
def key(name: str) -> Any:
    """A private key by its id, whose first letters are its type."""
    parameters = {"kid": name}
    if name.startswith("rsa"):
        return jwk.RSAKey.generate_key(2048, parameters)
    if name.startswith("ec"):
        return jwk.ECKey.generate_key("P-256", parameters)
    if name.startswith("ed"):
        return jwk.OKPKey.generate_key("Ed25519", parameters)
    return jwk.OctKey.generate_key(256, parameters)


def jwks(*names: str, **more: Any) -> str:
    return json.dumps({"keys": [key(name).as_dict(private=False) | more for name in names]})


def sign(
    claims: dict[str, Any], name: str = "ec1", algorithm: str = "ES256", kid: str | None = "", **header: Any
) -> str:
    protected: dict[str, Any] = {"alg": algorithm, "kid": name if kid == "" else kid} | header
    if kid is None:
        del protected["kid"]
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(protected, json.dumps(claims), key(name), registry=registry)


def encode(part: object) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(text).decode().rstrip("=")


def unsigned(header: object, claims: object, signature: str = "") -> str:
    return f"{encode(header)}.{encode(claims)}.{signature}"


def validator(*names: str, settings: JwtSettings = SETTINGS, **more: Any) -> JwtValidator:
    keys = Jwks(jwks(*(names or ("rsa1", "ec1", "ed1")), **more))
    return JwtValidator(settings, lambda: keys)


@cache
def usual() -> JwtValidator:
    """One for many tokens."""
    return validator("ec1")


def reason(token: str, taker: JwtValidator | UnsecuredValidator | None = None, now_ms: int = NOW_MS) -> str:
    with pytest.raises(InvalidToken) as raised:
        (taker or validator()).validate(token, now_ms)
    assert raised.value.status == "invalid_token"
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("rsa1", "RS256"),
        ("rsa1", "RS512"),
        ("rsa1", "PS256"),
        ("ec1", "ES256"),
        ("ed1", "EdDSA"),
        ("ed1", "Ed25519"),
    ],
)
def test_a_token_that_one_of_the_keys_has_signed_says_who_the_client_is(name: str, algorithm: str) -> None:
    token = sign(CLAIMS | {"scope": ["read", " write "]}, name, algorithm)
    assert validator().validate(token, NOW_MS) == BearerToken(
        "alice", (NOW + 300) * 1000, frozenset({"read", "write"}), NOW * 1000
    )


def test_a_session_ends_with_its_token() -> None:
    sasl = machine(OAuthBearerMechanism(validator()))
    done = go_through(sasl, OAuthBearerClient(Secret(sign(CLAIMS)), {"traceId": "1 2"}))
    assert done == Authenticated(user("alice"), 300_000, expires=True, again=False)


def test_without_a_key_id_each_key_that_fits_is_tried() -> None:
    several = validator("rsa1", "ec2", "ec1")
    assert several.validate(sign(CLAIMS, kid=None), NOW_MS).principal == "alice"
    assert reason(sign(CLAIMS, "ec3", kid=None), several) == "no key that is known has signed the token"
    assert reason(sign(CLAIMS, kid=None), validator("ec2", "ec3", "ec4", "ec5", "ec1")).startswith("no key")


def test_a_key_that_is_not_known_is_told_of_so_that_keys_can_be_fetched() -> None:
    unknown: list[str] = []
    keys = [Jwks(jwks("ec1"))]
    rotating = JwtValidator(SETTINGS, lambda: keys[0], unknown.append)
    token = sign(CLAIMS, "ec2")
    assert reason(token, rotating) == "no such key is known"
    assert unknown == ["ec2"]
    keys[0] = Jwks(jwks("ec1", "ec2"))
    assert rotating.validate(token, NOW_MS).principal == "alice"
    assert unknown == ["ec2"]
    assert reason(sign(CLAIMS, "ec3", kid="ec1"), rotating) == "no key that is known has signed the token"
    assert unknown == ["ec2"]


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "HS256", "RS1", "ES256K", "", None, 7, ["ES256"]]
)
def test_algorithms_without_a_public_key_are_not_taken(algorithm: object) -> None:
    for signature in ("", "AAAA"):
        text = reason(unsigned({"alg": algorithm}, CLAIMS, signature or "e30"))
        assert text == "the token's algorithm is not taken"


def test_a_public_key_is_no_password() -> None:
    """HS256 with the text of a public key that everybody knows, which careless verifiers fall for."""
    public = key("rsa1").as_pem(private=False)
    signed = f"{encode({'alg': 'HS256', 'kid': 'rsa1'})}.{encode(CLAIMS)}"
    token = f"{signed}.{encode(hmac.digest(public, signed.encode(), 'sha256'))}"
    assert reason(token) == "the token's algorithm is not taken"


def test_a_key_is_for_its_own_algorithm_and_use() -> None:
    assert reason(sign(CLAIMS, "rsa1", "RS256"), validator("rsa1", alg="RS512")) == "no such key is known"
    assert reason(sign(CLAIMS), validator("ec1", use="enc")) == "no such key is known"
    header = {"alg": "RS256", "kid": "ec1"}
    assert reason(unsigned(header, CLAIMS, "AAAA")) == "no such key is known"
    header = {"alg": "ES384", "kid": "ec1"}
    assert reason(unsigned(header, CLAIMS, encode(bytes(96)))) == "no key that is known has signed the token"


def test_what_was_signed_cannot_be_changed() -> None:
    header, payload, signature = sign(CLAIMS).split(".")
    other = encode(CLAIMS | {"sub": "admin"})
    assert reason(f"{header}.{other}.{signature}").startswith("no key")
    assert reason(f"{encode({'alg': 'ES256', 'kid': 'ec1', 'x': 1})}.{payload}.{signature}").startswith(
        "no key"
    )
    assert reason(f"{header}.{payload}.{encode(bytes(64))}").startswith("no key")
    assert reason(f"{header}.{payload}.{encode(b'')}e30").startswith("no key")


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF"}])
def test_headers_that_change_how_a_token_is_read_are_not_taken(header: dict[str, Any]) -> None:
    token = unsigned({"alg": "ES256", "kid": "ec1"} | header, CLAIMS, "AAAA")
    assert reason(token) == "the token's header has what is not taken"
    # One that does not, is.
    assert validator().validate(sign(CLAIMS, typ="at+jwt", nonce="x"), NOW_MS).principal == "alice"


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"exp": None}, "when it ends"),
        ({"iat": None}, "when it was made"),
        ({"exp": NOW - 30}, "has expired"),
        ({"exp": -5, "iat": 0}, "has expired"),
        ({"exp": str(NOW + 300)}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"exp": 2**70}, "exp is no time"),
        ({"iat": -1}, "before there was time"),
        ({"iat": [NOW]}, "iat is no time"),
        ({"iat": NOW + 301}, "ends before it begins"),
        ({"nbf": NOW + 31}, "not good yet"),
        ({"nbf": NOW + 400}, "ends before it begins"),
        ({"nbf": "now"}, "nbf is no time"),
        ({"aud": None}, "aud is no text"),
        ({"aud": "kafka2"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": [7, "kafka"]}, "aud is no text"),
        ({"iss": None}, "issuer"),
        ({"iss": "https://id.example/"}, "issuer"),
        ({"iss": ["https://id.example"]}, "issuer"),
        ({"sub": None}, "whose it is"),
        ({"sub": ""}, "whose it is"),
        ({"sub": " \t"}, "whose it is"),
        ({"sub": 7}, "whose it is"),
        ({"scope": ""}, "scope"),
        ({"scope": ["a", " a"]}, "scope"),
        ({"scope": ["a", 7]}, "scope"),
    ],
)
def test_a_token_that_is_signed_may_still_not_be_good(claims: dict[str, Any], text: str) -> None:
    all_of_them = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    assert text in reason(sign(all_of_them))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 29},
        {"exp": NOW - 29, "iat": NOW - 29},
        {"exp": NOW + 0.5},
        {"nbf": NOW + 30},
        {"iat": NOW + 300},
        {"aud": ["x", "other"]},
        {"scope": {"not": "read"}},
        {"scope": "a b"},
    ],
)
def test_clocks_may_differ_and_audiences_may_be_several(claims: dict[str, Any]) -> None:
    changed = CLAIMS | {"iat": NOW - 60} | claims
    assert validator().validate(sign(changed), NOW_MS).principal == "alice"


def test_claims_may_have_other_names_and_whose_tokens_are_taken_has_to_be_said() -> None:
    lenient = JwtSettings(
        allow_unverified_audience=True,
        allow_unverified_issuer=True,
        sub_claim_name="email",
        scope_claim_name="roles",
        clock_skew_seconds=0,
    )
    token = sign({"email": " a@b ", "roles": "r", "iat": NOW, "exp": NOW + 1})
    assert validator(settings=lenient).validate(token, NOW_MS) == BearerToken(
        "a@b", (NOW + 1) * 1000, frozenset({"r"}), NOW * 1000
    )
    anyones = {"allow_unverified_audience": True, "allow_unverified_issuer": True}
    for wrong in (
        {"expected_issuer": "x"},
        {"expected_audiences": frozenset({"x"})},
        {"expected_audiences": frozenset({"x"}), "expected_issuer": ""},
        anyones | {"sub_claim_name": " "},
    ):
        with pytest.raises(ValueError, match=r"allow\.unverified|must not be empty"):
            JwtSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "..",
        "a.b",
        "a.b.c.d",
        ".e30.AAAA",
        "e30..AAAA",
        "e30.e30.",
        "e30.e30.AAAA",
        "!!!.e30.AAAA",
        unsigned([], CLAIMS, "AAAA"),
        unsigned(b'{"alg":"ES256","alg":"none"}', CLAIMS, "AAAA"),
        unsigned(b"[" * 50_000, CLAIMS, "AAAA"),
        unsigned({"alg": "ES256", "kid": 7}, CLAIMS, "AAAA"),
        unsigned(b'{"alg":"ES256","x":' + b"9" * 5_000 + b"}", CLAIMS, "AAAA"),
        unsigned({"alg": "ES256", "kid": "ec1", "x": "y" * 20_000}, CLAIMS, "AAAA"),
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    reason(token)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"sub":"alice","sub":"admin"}',
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b"[]",
        b"\xff",
        b"[" * 50_000,
    ],
)
def test_a_payload_that_is_no_object_is_refused_though_it_is_signed(payload: bytes) -> None:
    token = jws.serialize_compact({"alg": "ES256", "kid": "ec1"}, payload, key("ec1"))
    text = reason(token)
    assert "malformed" in text or text.startswith("Malformed")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": {}}', '{"keys": [], "keys": []}', b"\xff"])
def test_what_is_no_key_set_is_refused(text: str | bytes) -> None:
    with pytest.raises(JwksError):
        Jwks(text)


def test_of_a_key_set_what_is_good_is_taken() -> None:
    listed = json.loads(jwks("ec1", "rsa1"))["keys"]
    odd = [7, {}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": "?"}, {"kty": "new"}, {"kty": ["RSA"]}]
    with pytest.warns(SecurityWarning):
        weak = jwk.RSAKey.import_key(_weak_rsa()).as_dict(private=False)
    keys = Jwks(json.dumps({"keys": [*odd, weak, *listed]}))
    assert len(keys) == 2
    assert len(Jwks('{"keys": []}')) == 0
    # Each takes its time, and all are read at once.
    assert len(Jwks(json.dumps({"keys": listed * KEYS_MAX}))) == KEYS_MAX


def _weak_rsa() -> bytes:
    made = generate_private_key(65_537, 1_024)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_token_may_be_large_but_not_huge() -> None:
    large = sign(CLAIMS | {"groups": ["a group of twenty cha"] * 2_500}, "rsa1", "RS256")
    assert 70_000 < len(large) < 98_304
    assert validator("rsa1").validate(large, NOW_MS).principal == "alice"
    huge = sign(CLAIMS | {"groups": ["a group of twenty cha"] * 3_500}, "rsa1", "RS256")
    assert reason(huge) == f"a token of {len(huge)} bytes"


# Messages.


class Believing:
    """Takes each token for the name of its bearer, but for one."""

    def validate(self, token: str, now_ms: int) -> BearerToken:
        if token == "bad":
            raise InvalidToken("a bad token")
        if token == "little":
            raise InvalidToken("not enough", "insufficient_scope", "[read]")
        return BearerToken(token, now_ms + 60_000)


def respond(message: bytes) -> bytes | Done:
    return OAuthBearerMechanism(Believing()).begin().respond(message, NOW_MS)


@pytest.mark.parametrize(
    ("message", "principal"),
    [
        # RFC 7628, section 4.1.
        (
            b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
            b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
            None,
        ),
        (b"n,,\x01auth=Bearer alice\x01\x01", "alice"),
        (b"n,,\x01auth=bEARER   alice\x01\x01", "alice"),
        (b"n,a=alice,\x01auth=Bearer alice\x01a=b\x01c=d e\r\n\x01\x01", "alice"),
        (b"n,,\x01auth=Bearer x\x01auth=Bearer alice==\x01\x01", "alice=="),
    ],
)
def test_a_message_has_a_token_and_may_have_more(message: bytes, principal: str | None) -> None:
    if principal is None:
        with pytest.raises(Refused, match="different from the token's principal name"):
            respond(message)
    else:
        assert respond(message) == Done(b"", user(principal), NOW_MS + 60_000)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer alice\x01",
        b"y,,\x01auth=Bearer alice\x01\x01",
        b"n,\x01auth=Bearer alice\x01\x01",
        b"n,,\x01auth=Bearer\x01\x01",
        b"n,,\x01auth=Basic alice\x01\x01",
        b"n,,\x01auth=alice\x01\x01",
        b"n,,\x01auth=Bearer ali ce\x01\x01",
        b"n,,\x01token=Bearer alice\x01\x01",
        b"n,,\x01auth=Bearer alice\x01a1=b\x01\x01",
        b"n,,\x01auth=Bearer alice\x01a=\x01\x01",
        b"n,,\x01auth=Bearer alice\x01" + b"a=b\x01" * 100 + b"\x01",
        b"n,,\x01auth=Bearer alice\x01a=\xc3\xb6\x01\x01",
        b"n,,\x01auth=Bearer " + b"x" * 140_000 + b"\x01\x01",
    ],
)
def test_what_is_no_message_is_refused_without_words(message: bytes) -> None:
    sasl = machine(OAuthBearerMechanism(Believing()))
    handshake(sasl, "OAUTHBEARER")
    (failed,) = authenticate(sasl, message)
    assert isinstance(failed, Failed)
    assert failed.answer is not None
    assert failed.answer["error_message"].startswith(
        "Authentication failed during authentication due to invalid"
    )
    assert "alice" not in failed.reason


@pytest.mark.parametrize(
    "message",
    [
        b"n,a=" + b"a" * 130_000,
        b"n,,\x01" + b"a=b\x01" * 30_000 + b"\x01",
        b"n,,\x01auth=" + b"B" * 130_000 + b"\x01\x01",
        b"n,,\x01auth=Bearer " + b"x" * 130_000 + b"?\x01\x01",
    ],
)
def test_messages_take_no_longer_than_they_are_long(message: bytes) -> None:
    for attempt in cpu_at_most(0.005):
        with attempt.cpu(), pytest.raises(Invalid):
            respond(message)


def test_a_message_has_up_to_128_kb() -> None:
    start, end = b"n,,\x01auth=Bearer ", b"\x01\x01"
    size = 128 * 1024 - len(start) - len(end)
    assert isinstance(respond(start + b"x" * size + end), Done)
    with pytest.raises(Invalid, match="131073 bytes"):
        respond(start + b"x" * (size + 1) + end)


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("bad", '{"status":"invalid_token"}'),
        ("little", '{"status":"insufficient_scope", "scope":"[read]"}'),
    ],
)
def test_a_bad_token_is_answered_with_json_and_failed_once_that_is_confirmed(token: str, told: str) -> None:
    for after in (b"\x01", b"n,,\x01auth=Bearer alice\x01\x01"):
        sasl = machine(OAuthBearerMechanism(Believing()))
        handshake(sasl, "OAUTHBEARER")
        (reply,) = authenticate(sasl, f"n,,\x01auth=Bearer {token}\x01\x01".encode())
        assert isinstance(reply, Reply)
        assert reply.fields["auth_bytes"] == told.encode()
        (failed,) = authenticate(sasl, after)
        assert isinstance(failed, Failed)
        assert failed.answer is not None
        assert failed.answer["error_message"] == told


def test_a_broker_can_be_the_client_and_confirms_what_it_is_refused() -> None:
    client = OAuthBearerClient(Secret("bad"))
    sasl = machine(OAuthBearerMechanism(Believing()))
    assert isinstance(go_through(sasl, client), Failed)
    assert client.refusal == """'{"status":"invalid_token"}'"""
    with pytest.raises(ServerRefused):
        client.respond(b"again")


def test_kafka_pythons_client_is_understood() -> None:
    class Provider(AbstractTokenProvider):
        def token(self) -> str:
            return "alice"

        def extensions(self) -> dict[str, str]:
            return {"trace": "1"}

    client = SaslMechanismOAuth(sasl_oauth_token_provider=Provider())
    assert isinstance(respond(client.auth_bytes()), Done)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_token(message: bytes) -> None:
    for start in (b"", b"n,,\x01auth=Bearer ", b"n,a=b,\x01"):
        try:
            answer = respond(start + message)
        except (Invalid, Refused):
            continue
        assert isinstance(answer, bytes | Done)


@given(st.text(max_size=200))
def test_any_text_is_no_token(token: str) -> None:
    reason(token, usual())
    reason(token, UnsecuredValidator(UnsecuredSettings()))


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["exp", "iat", "nbf", "sub", "aud", "iss", "scope"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda children: (
                st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
            ),
            max_leaves=5,
        ),
    )
)
def test_claims_of_any_kind_are_refused_or_make_sense(claims: dict[str, Any]) -> None:
    checking = usual()
    taking = UnsecuredValidator(UnsecuredSettings())
    for check in (
        lambda: checking._check(read_object(json.dumps(CLAIMS | claims)), NOW_MS),
        lambda: taking.validate(unsigned({"alg": "none"}, CLAIMS | claims), NOW_MS),
    ):
        try:
            good = check()
        except (InvalidToken, ValueError) as error:
            assert isinstance(error, InvalidToken) or str(error) == "malformed JSON"
        else:
            assert good.principal.strip()
            assert NOW_MS - 30_000 < good.expires_ms < 2**53 * 1000


# Tokens that nobody has signed.


def test_an_unsecured_token_is_taken_where_it_is_configured_to_be() -> None:
    taking = UnsecuredValidator(settings_of({"unsecuredValidatorRequiredScope": "read  write", "x": "y"}))
    token = unsigned(
        {"alg": "none"}, {"sub": "alice", "exp": NOW + 0.5, "iat": NOW, "scope": ["read", "write", " x "]}
    )
    assert taking.validate(token, NOW_MS) == BearerToken(
        "alice", NOW_MS + 500, frozenset({"read", "write", "x"}), NOW_MS
    )
    with pytest.raises(InvalidToken) as raised:
        taking.validate(
            unsigned({"alg": "none"}, {"sub": "alice", "exp": NOW + 1, "scope": "read write"}), NOW_MS
        )
    assert (raised.value.status, raised.value.scope) == ("insufficient_scope", "[read, write]")


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"exp": NOW}, "has expired"),
        ({"exp": None}, "No expiration"),
        ({"exp": "1"}, "no time"),
        ({"iat": NOW + 1}, "after now"),
        ({"iat": None}, "no time"),
        ({"exp": NOW + 1, "iat": NOW + 1}, "after now"),
        ({"sub": None}, "No principal"),
        ({"sub": " "}, "No principal"),
        ({"sub": 7}, "No principal"),
        ({"scope": 7}, "scope"),
    ],
)
def test_an_unsecured_token_has_to_make_sense(claims: dict[str, Any], text: str) -> None:
    all_of_them = {
        name: value for name, value in (CLAIMS | claims).items() if name == "iat" or value is not None
    }
    taking = UnsecuredValidator(UnsecuredSettings())
    assert text in reason(unsigned({"alg": "none"}, all_of_them), taking)


def test_an_unsecured_token_is_not_signed_and_a_signed_one_is_not_unsecured() -> None:
    taking = UnsecuredValidator(UnsecuredSettings())
    assert "'none'" in reason(sign(CLAIMS), taking)
    assert "signature" in reason(unsigned({"alg": "none"}, CLAIMS, "AAAA"), taking)
    assert "'none'" in reason(unsigned({}, CLAIMS), taking)


def test_clocks_may_differ_for_unsecured_tokens_where_it_is_said() -> None:
    options = {
        "unsecuredValidatorAllowableClockSkewMs": "3000",
        "unsecuredValidatorPrincipalClaimName": "name",
    }
    taking = UnsecuredValidator(settings_of(options))
    token = unsigned({"alg": "none"}, {"name": "bob", "exp": NOW - 2.5, "iat": NOW - 3})
    assert taking.validate(token, NOW_MS).principal == "bob"
    for name, value in (
        ("AllowableClockSkewMs", "-1"),
        ("AllowableClockSkewMs", "x"),
        ("RequiredScope", 'a"b'),
    ):
        with pytest.raises(ValueError, match=r"clock skew|scope"):
            settings_of({f"unsecuredValidator{name}": value})


def test_what_is_refused_is_not_shown() -> None:
    token = sign(CLAIMS | {"aud": "elsewhere"})
    for part in (*token.split("."), urlsafe_b64decode(token.split(".")[1] + "==").decode()):
        assert part not in reason(token)
    assert "Bearer" not in repr(validator().validate(sign(CLAIMS), NOW_MS))[len("BearerToken") :]
