"""Keys and certificates in the forms that Kafka's settings name, and what is said of those that fail."""

from __future__ import annotations

import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tls_support import Authority, get_of, pem_of

from ottla.config import ConfigError
from ottla.security.java_keystore import JksError, decrypt, read_jks
from ottla.security.stores import read_keystore, read_truststore

ROOT = Authority("Root")
BETWEEN = Authority("Between", ROOT)
ME = BETWEEN.issue("me")
OTHER = ROOT.issue("other")
PASSWORD = "verysecret"


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(read: Any, **given_: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(get_of(**given_))
    message = str(caught.value)
    assert PASSWORD not in message and "PRIVATE" not in message.replace("BEGIN PRIVATE KEY", "")
    return message


def test_none_is_none() -> None:
    assert read_keystore(get_of()) is None and read_truststore(get_of()) is None


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_pem_file(tmp_path: Path, password: str | None) -> None:
    text = f"Bag Attributes\n  friendlyName: me\n{ME.chain_pem}\nsome more\n{ME.key_pem(password)}"
    found = read_keystore(
        get_of(keystore_type="PEM", keystore_location=written(tmp_path, "k.pem", text), key_password=password)
    )
    assert found is not None and found.chain == (ME.certificate, BETWEEN.certificate)
    assert ME.key_pem().encode() in found.pem() and ME.key_pem() not in repr(found)


def test_pem_in_the_settings_themselves_may_have_lost_its_lines() -> None:
    def flat(text: str) -> str:
        return text.replace("\n", " ")

    found = read_keystore(
        get_of(
            keystore_type="PEM",
            keystore_key=flat(ME.key_pem(PASSWORD)),
            keystore_certificate_chain=flat(ME.chain_pem),
            key_password=PASSWORD,
        )
    )
    assert found is not None and found.chain == (ME.certificate, BETWEEN.certificate)
    trusted = read_truststore(
        get_of(
            truststore_type="PEM", truststore_certificates=flat(pem_of(ROOT.certificate, BETWEEN.certificate))
        )
    )
    assert trusted is not None and trusted.certificates == (ROOT.certificate, BETWEEN.certificate)


@pytest.mark.parametrize("kind", ["PKCS12", "pkcs12", "JKS"])
def test_pkcs12(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, "k.p12", ME.pkcs12(PASSWORD))
    found = read_keystore(
        get_of(keystore_type=kind, keystore_location=path, keystore_password=PASSWORD, key_password=PASSWORD)
    )
    assert found is not None
    assert found.chain == (ME.certificate, BETWEEN.certificate, ROOT.certificate)
    trusted = read_truststore(
        get_of(truststore_type=kind, truststore_location=path, truststore_password=PASSWORD)
    )
    assert trusted is not None and ROOT.certificate in trusted.certificates


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"keystore_key": "x"}, "set ssl.keystore.type=PEM"),
        ({"keystore_type": "PEM", "keystore_key": "x"}, "ssl.keystore.certificate.chain is missing"),
        ({"keystore_type": "PEM", "keystore_certificate_chain": "x"}, "ssl.keystore.key is missing"),
        (
            {
                "keystore_type": "PEM", "keystore_key": "x", "keystore_certificate_chain": "x",
                "keystore_location": "/x",
            },
            "both set",
        ),
        (
            {
                "keystore_type": "PEM", "keystore_key": "x", "keystore_certificate_chain": "x",
                "keystore_password": PASSWORD,
            },
            "ssl.key.password",
        ),
        ({"keystore_type": "PEM", "keystore_location": "/x", "keystore_password": PASSWORD}, "key.password"),
        ({"keystore_password": PASSWORD}, "without ssl.keystore.location"),
        ({"keystore_location": "/x"}, "without ssl.keystore.password"),
        ({"keystore_type": "BCFKS", "keystore_location": "/x"}, "it must be PEM, PKCS12 or JKS"),
        ({"keystore_type": "PEM", "keystore_location": "/no/such"}, "/no/such cannot be read: no such file"),
        ({"keystore_type": "PEM", "keystore_location": "/dev"}, "/dev cannot be read: is a directory"),
        ({"keystore_type": "PEM", "keystore_location": "/dev/zero"}, "it is no file"),
        ({"keystore_type": "PEM", "keystore_location": "/dev/null"}, "it is no file"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(given_: dict[str, Any], message: str) -> None:
    assert message in refusal(read_keystore, **given_)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"truststore_certificates": "x"}, "set ssl.truststore.type=PEM"),
        (
            {"truststore_type": "PEM", "truststore_certificates": "x", "truststore_location": "/x"},
            "both set",
        ),
        ({"truststore_type": "PEM", "truststore_location": "/x", "truststore_password": PASSWORD}, "none"),
        ({"truststore_password": PASSWORD}, "without ssl.truststore.location"),
        ({"truststore_type": "PEM", "truststore_certificates": "x"}, "has no certificate"),
        ({"truststore_location": "/no/such"}, "cannot be read"),
    ],
)  # fmt: skip
def test_settings_of_truststores_that_do_not_go_together(given_: dict[str, Any], message: str) -> None:
    assert message in refusal(read_truststore, **given_)


def damaged(text: str) -> str:
    lines = text.splitlines()
    lines[1] = "A" * len(lines[1])
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "password", "message"),
    [
        (ME.pem(PASSWORD), None, "is encrypted: set ssl.key.password"),
        (ME.pem(PASSWORD), "wrong", "ssl.key.password is wrong"),
        (damaged(ME.key_pem()) + ME.chain_pem, None, "cannot be read: it is damaged"),
        (ME.key_pem() + damaged(ME.chain_pem), None, "certificate 1 in"),
        (ME.key_pem(), None, "has no certificate"),
        (ME.chain_pem, None, "no private key"),
        (ME.pem() + OTHER.key_pem(), None, "more than one private key"),
        (ME.key_pem() + OTHER.chain_pem, None, "is not that of its certificate"),
        (ME.key_pem() + OTHER.chain_pem + ME.chain_pem, None, "must come first, and is number 2"),
    ],
)
def test_pem_files_that_will_not_do(tmp_path: Path, text: str, password: str | None, message: str) -> None:
    path = written(tmp_path, "k.pem", text)
    said = refusal(read_keystore, keystore_type="PEM", keystore_location=path, key_password=password)
    assert message in said and str(path) in said


def test_a_password_for_a_key_that_has_none_is_not_missed(tmp_path: Path) -> None:
    path = written(tmp_path, "k.pem", ME.pem())
    assert read_keystore(get_of(keystore_type="PEM", keystore_location=path, key_password=PASSWORD))


@pytest.mark.parametrize(
    ("data", "given_", "message"),
    [
        (ME.pkcs12(PASSWORD), {"keystore_password": "wrong"}, "ssl.keystore.password is wrong"),
        (b"", {"keystore_password": PASSWORD}, "or it is no PKCS12 file"),
        (ME.pem().encode(), {"keystore_password": PASSWORD}, "set ssl.keystore.type=PEM"),
        (ME.pkcs12(PASSWORD), {"keystore_type": "PEM"}, "set its type to PKCS12"),
        (ME.pkcs12(PASSWORD), {"keystore_password": PASSWORD, "key_password": "2"}, "is one for both"),
        (b"\xfe\xed\xfe\xed\0\0\0\2", {"keystore_password": PASSWORD}, "its password is wrong, or"),
        (b"\xce\xce\xce\xce\0\0\0\2", {"keystore_password": PASSWORD}, "keytool -importkeystore"),
    ],
)  # fmt: skip
def test_pkcs12_files_that_will_not_do(
    tmp_path: Path, data: bytes, given_: dict[str, str], message: str
) -> None:
    path = written(tmp_path, "k", data)
    said = refusal(read_keystore, keystore_location=path, **given_)
    assert message in said and (str(path) in said or "key_password" in given_)
    given_ = {name.replace("keystore", "truststore"): text for name, text in given_.items()}
    if "key_password" not in given_:
        said = refusal(read_truststore, truststore_location=path, **given_)
        assert message.replace("keystore.", "truststore.") in said or "keytool" in said


def test_a_truststore_whose_password_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "t.p12", ME.pkcs12(PASSWORD))
    assert "ssl.truststore.password is not set" in refusal(read_truststore, truststore_location=path)


# Written by keytool -storetype JKS: a key (CN=me) whose password is another one than the file's, and its
# certificate as one that is trusted.
JKS_KEY = b64decode(
    "/u3+7QAAAAIAAAABAAAAAQACbWUAAAGiLgyDfQAAAH8wfTAOBgorBgEEASoCEQEBBQAEa0Z7XkkP63OwfFh+l5PO+yZPI+fs"
    "M+5gDKrItpXGiO9pkcU5Us/yJKL1suZeKTUIKOvrt7Qll+UYFjGN0mN3QdI0ZxJDPEgN7XnDspQP+fiaHMLdF6lrtTOK88BC"
    "qoN8zY3cwejfi7MWTdTPAAAAAQAFWC41MDkAAAE0MIIBMDCB16ADAgECAgg/hAIV+V5iCzAKBggqhkjOPQQDAjANMQswCQYD"
    "VQQDEwJtZTAeFw0yNjExMzAyMDAxNDFaFw0yNzAyMjgyMDAxNDFaMA0xCzAJBgNVBAMTAm1lMFkwEwYHKoZIzj0CAQYIKoZI"
    "zj0DAQcDQgAEjOATyLc0soCACOtaShO3vEJo+FJZIvs7QaJ3+oMzRVvSpZgScs4FoEDvhaUvzWLsVIZlK6/Mm5HiFkkWYt6g"
    "r6MhMB8wHQYDVR0OBBYEFGActKu5v95Dy3yvI1hjfmOf2BnQMAoGCCqGSM49BAMCA0gAMEUCICjulXUrxCXQoY+upfLQQF74"
    "yRv+Hl+reTF4i6xcDYp+AiEA03Tof+MSoeyu6YTUImbVM7+Ckp9Vt89QsiA9dqT+2HVkOR6A/Fv7Hwg+Iv/CvrWPRW4pUw=="
)
JKS_TRUSTED = b64decode(
    "/u3+7QAAAAIAAAABAAAAAgAEcm9vdAAAAaIuDIbuAAVYLjUwOQAAATQwggEwMIHXoAMCAQICCD+EAhX5XmILMAoGCCqGSM49"
    "BAMCMA0xCzAJBgNVBAMTAm1lMB4XDTI2MTEzMDIwMDE0MVoXDTI3MDIyODIwMDE0MVowDTELMAkGA1UEAxMCbWUwWTATBgcq"
    "hkjOPQIBBggqhkjOPQMBBwNCAASM4BPItzSygIAI61pKE7e8Qmj4Ulki+ztBonf6gzNFW9KlmBJyzgWgQO+FpS/NYuxUhmUr"
    "r8ybkeIWSRZi3qCvoyEwHzAdBgNVHQ4EFgQUYBy0q7m/3kPLfK8jWGN+Y5/YGdAwCgYIKoZIzj0EAwIDSAAwRQIgKO6VdSvE"
    "JdChj66l8tBAXvjJG/4eX6t5MXiLrFwNin4CIQDTdOh/4xKh7K7phNQiZtUzv4KSn1W3z1CyID12pP7YdbtyeJZ8x3zoxrDm"
    "yhMVXsgiHGvC"
)


def test_jks(tmp_path: Path) -> None:
    path = written(tmp_path, "k.jks", JKS_KEY)
    given_ = {"keystore_location": path, "keystore_password": PASSWORD}
    for kind in ("JKS", "PKCS12"):
        found = read_keystore(get_of(**given_, keystore_type=kind, key_password="otherkey"))
        assert found is not None and found.chain[0].subject.rfc4514_string() == "CN=me"
    for password in (None, PASSWORD):
        trusted = read_truststore(
            get_of(truststore_location=written(tmp_path, "t.jks", JKS_TRUSTED), truststore_password=password)
        )
        assert trusted is not None and trusted.certificates == found.chain
    # Whom one has the key of is trusted, too.
    trusted = read_truststore(get_of(truststore_location=path))
    assert trusted is not None and trusted.certificates == found.chain

    assert "ssl.key.password" in refusal(read_keystore, **given_)
    given_["keystore_password"] = "wrong"
    assert "its password is wrong" in refusal(read_keystore, **given_, key_password="otherkey")
    path.write_bytes(JKS_TRUSTED)
    given_["keystore_password"] = PASSWORD
    assert "has no private key" in refusal(read_keystore, **given_)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([JKS_KEY, JKS_TRUSTED]), st.integers(0, 500), st.binary(min_size=1, max_size=6))
def test_whatever_is_in_java_s_files_it_is_read_or_refused(whole: bytes, at: int, bad: bytes) -> None:
    data = whole[:at] + bad + whole[at + len(bad) :]
    try:
        store = read_jks(data, None)
        for key in store.keys:
            decrypt(key, "otherkey")
    except JksError as error:
        assert "otherkey" not in str(error)
    if data != whole:
        with pytest.raises(JksError):
            read_jks(data, PASSWORD)


@pytest.mark.skipif(shutil.which("keytool") is None, reason="needs Java's keytool")
def test_what_keytool_writes(tmp_path: Path) -> None:
    key, trust = tmp_path / "key", tmp_path / "trust"
    root = written(tmp_path, "root.pem", pem_of(ROOT.certificate))
    common = ["-storepass", PASSWORD, "-noprompt"]
    for command in (
        ["-genkeypair", "-keyalg", "EC", "-alias", "me", "-dname", "CN=me", "-keystore", key, *common],
        ["-importcert", "-alias", "root", "-file", root, "-keystore", trust, *common],
    ):
        subprocess.run(["keytool", *map(str, command)], check=True, capture_output=True)
    found = read_keystore(get_of(keystore_location=key, keystore_password=PASSWORD))
    assert found is not None and found.chain[0].subject.rfc4514_string() == "CN=me"
    trusted = read_truststore(get_of(truststore_location=trust, truststore_password=PASSWORD))
    assert trusted is not None and trusted.certificates == (ROOT.certificate,)


@pytest.mark.filterwarnings("ignore:PKCS#12 bundle could not be parsed as DER")
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_in_a_file_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = data.draw(st.sampled_from([ME.pem().encode(), ME.pem(PASSWORD).encode(), ME.pkcs12(PASSWORD)]))
    at = data.draw(st.integers(0, len(whole)))
    whole = whole[:at] + data.draw(st.binary(max_size=8)) + whole[at + data.draw(st.integers(0, 300)) :]
    path = written(tmp_path_factory.getbasetemp(), "any", whole)
    for kind, password in (("PEM", None), ("PKCS12", PASSWORD)):
        for read, name in ((read_keystore, "keystore"), (read_truststore, "truststore")):
            given_ = {f"{name}_type": kind, f"{name}_location": path, f"{name}_password": password}
            try:
                read(get_of(**given_, key_password=PASSWORD))
            except ConfigError as error:
                assert PASSWORD not in str(error)
