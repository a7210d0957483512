"""Who a client is: principals, names of certificates as Java writes them, and the rules that shorten names.

The expectations about names and rules are what Java and Kafka's own classes answered.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type as Kind
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ottla.security.distinguished_names import DerError, name_of, subject_of
from ottla.security.principal_rules import (
    KerberosName,
    KerberosShortNamer,
    NoName,
    RuleError,
    SslPrincipalMapper,
    parse_kerberos_name,
)
from ottla.security.principals import ANONYMOUS, KafkaPrincipal, parse_principal, user

SERVER = "CN=kafka-1.example.com,OU=Servers,O=Org,L=City,ST=State,C=US"


# Principals.


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("User:alice", "User", "alice"),
        ("User:CN=a:b,OU=x", "User", "CN=a:b,OU=x"),
        ("Group:", "Group", ""),
        (":x", "", "x"),
        ("user: ö/€@=\n", "user", " ö/€@=\n"),
    ],
)
def test_a_principal_has_a_type_and_a_name(text: str, kind: str, name: str) -> None:
    assert parse_principal(text) == KafkaPrincipal(kind, name)
    assert str(parse_principal(text)) == text


@pytest.mark.parametrize("text", ["", "alice", "User alice"])
def test_what_has_no_colon_is_no_principal(text: str) -> None:
    with pytest.raises(ValueError, match="principalType:principalName"):
        parse_principal(text)


def test_a_principal_is_the_same_however_it_came() -> None:
    by_token = KafkaPrincipal("User", "alice", token_authenticated=True)
    assert by_token == user("alice")
    assert hash(by_token) == hash(user("alice"))
    assert by_token != KafkaPrincipal("Group", "alice")
    assert str(ANONYMOUS) == "User:ANONYMOUS"
    assert not ANONYMOUS.token_authenticated


# Names of certificates.

Part = tuple[x509.ObjectIdentifier, str] | tuple[x509.ObjectIdentifier, str, Kind]


def der(*parts: Part | list[Part]) -> bytes:
    """A name; the parts of a list are one."""
    listed = [part if isinstance(part, list) else [part] for part in parts]
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(
                part[0], part[1], _type=part[2] if len(part) == 3 else Kind.UTF8String, _validate=False
            )
            for part in rdn
        )
        for rdn in listed
    ).public_bytes()


CN, OU, EMAIL = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.EMAIL_ADDRESS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (der(), ""),
        (der((CN, "duke")), "CN=duke"),
        (
            der(
                (NameOID.COUNTRY_NAME, "US", Kind.PrintableString),
                (NameOID.STATE_OR_PROVINCE_NAME, "State"),
                (NameOID.LOCALITY_NAME, "City"),
                (NameOID.ORGANIZATION_NAME, "Org"),
                (OU, "Servers"),
                (CN, "kafka-1.example.com"),
            ),
            SERVER,
        ),
        (
            der(
                (NameOID.DOMAIN_COMPONENT, "org", Kind.IA5String),
                (NameOID.STREET_ADDRESS, "1"),
                (NameOID.USER_ID, "u"),
            ),
            "UID=u,STREET=1,DC=org",
        ),
        (der((CN, 'a,b+c"d\\e<f>g;h#i=j')), 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h\\#i\\=j'),
        (der((CN, "  two \r")), "CN=\\ \\ two\\ \\\r"),
        (der((CN, "   ")), "CN=\\ \\ \\ "),
        (der((CN, "a\0b\nc/d@e")), "CN=a\\00b\nc/d@e"),
        (der((CN, "Jörg €😀")), "CN=Jörg €😀"),
        (der((CN, "AB", Kind.BMPString)), "CN=\\00A\\00B"),
        (der((CN, "A", Kind.UniversalString)), "CN=#1c0400000041"),
        (der((EMAIL, "a@b", Kind.IA5String), (CN, "x")), "CN=x,1.2.840.113549.1.9.1=#1603614062"),
        (der((NameOID.SERIAL_NUMBER, "7"), (NameOID.TITLE, "Dr")), "2.5.4.12=#0c024472,2.5.4.5=#0c0137"),
        (der((x509.ObjectIdentifier("2.999.3"), "x")), "2.999.3=#0c0178"),
        (der([(CN, "a"), (OU, "b")], (CN, "c")), "CN=c,CN=a+OU=b"),
    ],
)
def test_a_name_is_written_as_java_writes_it(name: bytes, text: str) -> None:
    assert name_of(name) == text


def test_the_subject_is_found_in_a_certificate() -> None:
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(OU, "Ops"), x509.NameAttribute(CN, "näme, x")])
    issuer = x509.Name([x509.NameAttribute(CN, "the issuer")])
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), 7)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    assert subject_of(made) == "CN=näme\\, x,OU=Ops"
    for size in range(len(made)):
        with pytest.raises(DerError):
            subject_of(made[:size])


@given(st.binary(max_size=80))
def test_any_bytes_are_a_name_or_refused(junk: bytes) -> None:
    name = der((CN, "duke"), (OU, "x"))
    for some in (junk, name[: len(junk)] + junk, bytes([0x30, min(len(junk), 127)]) + junk):
        for read in (name_of, subject_of):
            try:
                read(some)
            except DerError as error:
                assert str(error)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CN, OU, EMAIL]),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        ),
        max_size=4,
    )
)
def test_different_names_are_written_differently(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    name = der(*parts)
    other = der(*parts, (CN, "more"))
    assert name_of(name) != name_of(other)
    assert name_of(other).startswith("CN=more")


# Rules for them.


@pytest.mark.parametrize(
    ("rules", "name", "principal"),
    [
        ("DEFAULT", SERVER, SERVER),
        (
            "RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L",
            SERVER,
            "kafka-1.example.com@servers",
        ),
        ("RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/L, DEFAULT", "CN=Duke,OU=JavaSoft", "duke"),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,DEFAULT", SERVER, SERVER),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/ , RULE:CN=([^,]*),.*/$1/U", "CN=duke,OU=x", "DUKE"),
        ("  ,, DEFAULT,", "x", "x"),
        # Java's replaceAll replaces the empty rest behind a match, too.
        ("RULE:.*/x/", "abc", "xx"),
        ("RULE:CN=(.*),.*/$12-$1$3/", "CN=a,CN=b", "a2-a$3"),
        ("RULE:^CN=([^,\\/]+).*$/$1 \\$x/U", "CN=duke,OU=x", "DUKE $X"),
        ("RULE:^(?i)cn=(?<n>[^,]*).*$/${n}/", "CN=duke,OU=x", "duke"),
        ("RULE:(.)(.)(.)(.)(.)(.)(.)(.)(.)(.).*/$10$11/", "abcdefghijkl", "ja1"),
        ("RULE:(.*)$/$2/L", "x", "$2$2"),
    ],
)
def test_the_first_rule_that_is_for_a_name_shortens_it(rules: str, name: str, principal: str) -> None:
    assert SslPrincipalMapper(rules).name(name) == principal


@pytest.mark.parametrize("rules", ["", "RULE:CN=/x/", "RULE:^CN=x$/x/,RULE:OU=.*/y/"])
def test_a_name_that_no_rule_is_for_makes_no_principal(rules: str) -> None:
    with pytest.raises(NoName, match="no rule"):
        SslPrincipalMapper(rules).name("CN=duke")


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("FOO", "has to be DEFAULT or"),
        ("DEFAULTX", "has to be"),
        ("RULE:a", "has to be"),
        ("RULE:a/b", "has to be"),
        ("RULE:a/b/c", "has to be"),
        ("RULE:a/b/LU", "has to be"),
        ("DEFAULT, rule:a/b/", "has to be"),
        ("RULE:(a/b/", "not closed"),
        ("RULE:a)/b/", "closes no group"),
        ("RULE:(a)\\1/b/", "references to groups"),
        ("RULE:(?=a).*/b/", "looking ahead"),
        ("RULE:(a*)*/b/", "may be empty"),
        ("RULE:a/$1/", "no group 1"),
        ("RULE:a/$/", "names no group"),
        ("RULE:a/${x}/", "no such group"),
    ],
)
def test_a_rule_that_is_wrong_is_refused_with_a_sentence(rules: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        SslPrincipalMapper(rules)


@pytest.mark.parametrize(
    "rule", ["RULE:(.*),(.*),(.*),(.*),(.*),(.*)$x/$1/", "RULE:([^=]+=)+[^=]+,(.*?)=(.*?)!/x/"]
)
def test_no_name_takes_long(rule: str) -> None:
    """Where Java, and Python, would try for ages."""
    with pytest.raises(NoName):
        SslPrincipalMapper(rule).name(",".join(["OU=a"] * 200))
    with pytest.raises(NoName, match="so long"):
        SslPrincipalMapper(rule).name(",".join(["OU=a"] * 20_000))


@given(st.text(st.sampled_from("RULE:DFAT/()[]*+?.\\$1,x^| "), max_size=40), st.text(max_size=20))
def test_any_rules_are_refused_or_work(rules: str, name: str) -> None:
    for whole in (rules, f"RULE:{rules}/$1/", f"RULE:(.*)/{rules}/L"):
        try:
            SslPrincipalMapper(whole).name(name)
        except (RuleError, NoName):
            continue


# Kerberos.


def short(principal: str, *rules: str) -> str:
    return KerberosShortNamer("REALM", rules or ("DEFAULT",)).name(parse_kerberos_name(principal))


def test_a_kerberos_name_has_up_to_three_parts() -> None:
    assert parse_kerberos_name("kafka/host.x@REALM") == KerberosName("kafka", "host.x", "REALM")
    assert parse_kerberos_name("alice@REALM") == KerberosName("alice", None, "REALM")
    assert parse_kerberos_name("alice/@") == KerberosName("alice", "", "")
    assert parse_kerberos_name("a/b") == KerberosName("a/b", None, None)
    for text in ("a/b/c@R", "a@b@c"):
        with pytest.raises(ValueError, match="Malformed"):
            parse_kerberos_name(text)
    for text in ("kafka/host.x@REALM", "alice@REALM", "alice", "alice/@"):
        assert str(parse_kerberos_name(text)) == text


@pytest.mark.parametrize(
    ("rules", "principal", "name"),
    [
        (["DEFAULT"], "alice@REALM", "alice"),
        (["DEFAULT"], "kafka/host@REALM", "kafka"),
        (["DEFAULT"], "alice", "alice"),
        (["DEFAULT"], "a/b", "a/b"),
        (["RULE:[1:$1]"], "alice@OTHER", "alice"),
        (["RULE:[2:$1]", "RULE:[1:$1-$0]/L"], "Alice@OTHER", "alice-other"),
        (["RULE:[1:$1@$0](.*@OTHER)s/@.*//", "DEFAULT"], "bob@OTHER", "bob"),
        (["RULE:[1:$1@$0](.*@OTHER)s/@.*//", "DEFAULT"], "bob@REALM", "bob"),
        (["RULE:[2:$1/$2@$0](svc.*)s/^([a-z]*).*$/$1/U"], "svc/h.example.com@OTHER", "SVC"),
        (["RULE:[1:$1]s/a/x/g"], "banana@R", "bxnxnx"),
        (["RULE:[1:$1]s/a/x/"], "banana@R", "bxnana"),
        (["RULE:[1:$1]s/(.)(.*)/$2$1/L"], "Bob@R", "obb"),
        (["RULE:[2:$2.$0]s/[.].*//g/U"], "a/b.c@R", "B"),
        (["RULE:[0:x]", "RULE:[1:]"], "a@R", ""),
    ],
)
def test_kerberos_rules_are_kafkas(rules: list[str], principal: str, name: str) -> None:
    assert short(principal, *rules) == name


@pytest.mark.parametrize(
    ("rules", "principal", "reason"),
    [
        (["DEFAULT"], "alice@OTHER", "no rule"),
        (["RULE:[1:$1](A.*)"], "bob@R", "no rule"),
        (["RULE:[2:$1]"], "bob@R", "no rule"),
        (["RULE:[1:$1@$0]", "DEFAULT"], "alice@REALM", "a simple name"),
        (["RULE:[2:$1/$2]"], "a/b@R", "a simple name"),
    ],
)
def test_a_kerberos_principal_without_a_short_name_is_nobody(
    rules: list[str], principal: str, reason: str
) -> None:
    with pytest.raises(NoName, match=reason):
        short(principal, *rules)


@pytest.mark.parametrize(
    "rule",
    [
        "", "FOO", "DEFAULT/L", "RULE:[:$1]", "RULE:[1:$1", "RULE:[1:$1]x", "RULE:[1:$2]", "RULE:[1:$]",
        "RULE:[1:$1](a", "RULE:[1:$1]([a)", "RULE:[1:$1]s/a/$1/", "RULE:[1:$1]s/a/b", "RULE:[99999999999:x]",
    ],
)  # fmt: skip
def test_a_kerberos_rule_that_is_wrong_is_refused(rule: str) -> None:
    with pytest.raises(RuleError, match="Invalid rule"):
        KerberosShortNamer("REALM", [rule])


@given(st.text(max_size=30))
def test_any_kerberos_name_is_somebody_or_nobody(text: str) -> None:
    try:
        name = short(text, "RULE:[2:$1](k.*)s/k/x/g", "RULE:[1:$1@$0](.*@OTHER)s/@.*//", "DEFAULT")
    except (NoName, ValueError):
        return
    assert "@" not in name
