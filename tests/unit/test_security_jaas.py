"""sasl.jaas.config, as Java's StreamTokenizer and Kafka's JaasConfig read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.security.jaas import (
    MODULES,
    PLAIN_MODULE,
    SCRAM_MODULE,
    JaasError,
    KerberosKey,
    Login,
    kerberos_key_of,
    login_of,
    plain_users,
    read_login_module,
    read_modules,
)
from ottla.security.secret import Secret


def options(text: str) -> dict[str, str]:
    (module,) = read_modules(f"Module required {text};")
    return {name: value.reveal() for name, value in module.options.items()}


def error(text: str, mechanism: str = "PLAIN") -> str:
    with pytest.raises(JaasError) as raised:
        read_login_module(text, mechanism)
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_a_broker_has_its_users_and_a_name_of_its_own() -> None:
    module = read_login_module(
        f"""{PLAIN_MODULE} Required
            username="admin"  // as whom it connects to the others
            password='it\\'s "secret"'
            user_admin='it\\'s "secret"' /* and
            user_not=here */
            user_alice="al\\u00e9=;\\\\\\"" user_bob=bobs-secret_1.2$
            user_="";
        """,
        "PLAIN",
    )
    assert (module.name, module.control_flag) == (PLAIN_MODULE, "required")
    assert login_of(module) == Login("admin", Secret('it\'s "secret"'), False)
    assert {name: password.reveal() for name, password in plain_users(module).items()} == {
        "admin": 'it\'s "secret"',
        "alice": 'alu00e9=;\\"',
        "bob": "bobs-secret_1.2$",
        "": "",
    }


@pytest.mark.parametrize("mechanism", MODULES)
def test_each_mechanism_has_its_module(mechanism: str) -> None:
    module = read_login_module(f"{MODULES[mechanism]} required a=b;", mechanism)
    assert module.option("a") == "b"
    assert module.option("c") is None
    assert login_of(module) is None
    for other in MODULES.values():
        if other != MODULES[mechanism]:
            assert "that of another mechanism" in error(f"{other} required;", mechanism)


def test_a_delegation_token_may_be_what_one_logs_in_by() -> None:
    module = read_login_module(
        f'{SCRAM_MODULE} required username="id" password="hmac" tokenauth=TRUE;', "SCRAM-SHA-256"
    )
    assert login_of(module) == Login("id", Secret("hmac"), True)


def test_a_broker_takes_tickets_by_a_key_of_a_file() -> None:
    name = MODULES["GSSAPI"]
    options = 'useKeyTab=TRUE storeKey=true keyTab="/etc/kafka.keytab" principal="kafka/host@REALM"'
    module = read_login_module(f"{name} required {options};", "GSSAPI")
    assert kerberos_key_of(module) == KerberosKey("kafka/host@REALM", "/etc/kafka.keytab")
    for missing in ("useKeyTab=TRUE", 'keyTab="/etc/kafka.keytab"', 'principal="kafka/host@REALM"'):
        module = read_login_module(f"{name} required {options.replace(missing, '')};", "GSSAPI")
        with pytest.raises(JaasError, match="needs useKeyTab=true"):
            kerberos_key_of(module)


@pytest.mark.parametrize(
    "text", ["username=a", "password=b", 'username="" password=b', 'username=a password=""']
)
def test_a_name_needs_a_password_and_the_other_way_round(text: str) -> None:
    module = read_login_module(f"{PLAIN_MODULE} required {text};", "PLAIN")
    with pytest.raises(JaasError, match="together"):
        login_of(module)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("a=b c=d", {"a": "b", "c": "d"}),
        ("a=b a=c", {"a": "c"}),
        ("a = b", {"a": "b"}),
        ('"a b"="c"', {"a b": "c"}),
        ("a=b2.c-d_$", {"a": "b2.c-d_$"}),
        ("a=ö€", {"a": "ö€"}),
        ('a="\\n\\t\\101\\7\\477\\q\\\\"', {"a": "\n\tA\x07'7q\\"}),
        ('a="\\1234"', {"a": "S4"}),
        ('a="b\nc="d"', {"a": "b", "c": "d"}),
        ("a='b\rc=d", {"a": "b", "c": "d"}),
        ("a=b // c=d\nc=e", {"a": "b", "c": "e"}),
        ("a=b / c=d\nc=e", {"a": "b", "c": "e"}),
        ("a=b /\nc=d\nc=e", {"a": "b", "c": "e"}),
        ("a=b /* c=d\n* / */ c=e", {"a": "b", "c": "e"}),
        ('a="/* no comment // */"', {"a": "/* no comment // */"}),
        ('a=""', {"a": ""}),
    ],
)
def test_words_quotes_escapes_and_comments_are_javas(text: str, found: dict[str, str]) -> None:
    assert options(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Login module not specified"),
        (" // nothing\n /* at all", "Login module not specified"),
        (";", "must begin with the name"),
        ("7 required;", "must begin with the name"),
        ('"" required;', "must begin with the name"),
        ("s3cret", "control flag not specified"),
        ("Module s3cret;", "Invalid login module control flag"),
        ("Module ;", "Invalid login module control flag"),
        ("Module required", "not terminated by semi-colon"),
        ("Module required a=b", "not terminated by semi-colon"),
        ('Module required password="s3cret;', "not terminated by semi-colon"),
        ("Module required password;", "Value not specified for key 'password'"),
        ("Module required password=", "Value not specified for key 'password'"),
        ("Module required password=7s3cret;", "Value not specified for key 'password'"),
        ("Module required password=-s3cret;", "Value not specified for key 'password'"),
        ("Module required password=@s3cret;", "Value not specified for key 'password'"),
        ("Module required username=a password=one s3cret;", "Value not specified for key number 3"),
        ("Module required user_al@ice=s3cret;", "Value not specified for key number 1"),
        ("Module required username=a password=some#s3cret;", "option 3 has no name"),
        ("Module required 7=s3cret;", "option 1 has no name"),
        ("Module required; Module required;", "contains 2 login modules, should be 1"),
        ("Module required;", "not known here"),
        ("com.sun.security.auth.module.JndiLoginModule required;", "not known here"),
        ("com.sun.security.auth.module.LdapLoginModule required;", "not known here"),
    ],
)
def test_what_is_wrong_is_said_without_what_was_written(text: str, message: str) -> None:
    found = error(text)
    assert message in found
    for hidden in ("s3cret", "one", "some", "ice"):
        assert hidden not in found.split()
        assert hidden == "one" or "s3" not in found


def test_a_module_shows_no_value() -> None:
    module = read_login_module(
        f'{PLAIN_MODULE} required username="admin" password="s3cret" user_x="s3cret";', "PLAIN"
    )
    assert "s3cret" not in f"{module}{module!r}{login_of(module)}{plain_users(module)}"


@given(st.text(alphabet=st.one_of(st.sampled_from("a=;\"'\\/*\n\r 0.-_$@"), st.characters()), max_size=60))
def test_any_text_is_read_or_refused_in_words_of_our_own(text: str) -> None:
    for whole in (text, f"Module required {text}", f"Module required password='hidden-{text}"):
        try:
            read_modules(whole)
        except JaasError as error:
            assert "hidden-" not in str(error)


def test_a_long_text_takes_no_time_for_each_sign_in_it() -> None:
    assert len(options(" ".join(f"a{n}='{n}'" for n in range(20_000)))) == 20_000
