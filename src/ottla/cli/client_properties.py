"""How commands come in at a secured cluster: librdkafka's properties, from ``-X`` and from files.

A file may be one that Kafka's own tools take (``--command-config``): its names are put into librdkafka's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.options import parse_pairs
from ottla.config.definition import ConfigError
from ottla.config.properties import decode_properties, parse_properties
from ottla.env.small_files import read_within
from ottla.security.jaas import JaasError, login_of, read_modules

# Names a file whose properties count for every command, before those of -X.
FILE_VARIABLE = "OTTLA_CLIENT_PROPERTIES"

# Larger than any such file.
FILE_BYTES_MAX = 4 * 1024 * 1024

# Names of Kafka's Java client that librdkafka has under others, or that say nothing to it.
_RENAMED = {"sasl.mechanism": "sasl.mechanisms"}
# rpk's names of what it takes by -X.
RPK = {"brokers": "bootstrap.servers", "user": "sasl.username", "pass": "sasl.password"}
_RENAMED |= RPK
_STORES = ("ssl.truststore.", "ssl.keystore.")
# Set where a delegation token is what one logs in by: librdkafka has no name for it, nor does it know how.
BY_TOKEN = "ottla.tokenauth"
_TYPES = ("ssl.truststore.type", "ssl.keystore.type")


def client_properties(pairs: Iterable[str] | None) -> dict[str, str]:
    """Those of ``-X NAME=VALUE`` and ``-X @FILE``, in librdkafka's words; of two with one name the later
    counts. CliError (usage) says what of them cannot be."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        found |= of_file(pair[1:], "-X") if pair.startswith("@") else parse_pairs("--property", [pair])
    return in_librdkafkas_words(found)


def of_file(path: str, what: str) -> dict[str, str]:
    """The properties of a file, which ``what`` names, as they are written there."""
    try:
        return parse_properties(decode_properties(read_within(path, FILE_BYTES_MAX)))
    except (OSError, ValueError, ConfigError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise CliError(f"{what} {path}: {reason}", ExitCode.USAGE) from None


def in_librdkafkas_words(given: Mapping[str, str]) -> dict[str, str]:
    """Client properties of Kafka or librdkafka under the names that librdkafka has for them."""
    made = {_RENAMED.get(name, name): value for name, value in given.items()}
    jaas = made.pop("sasl.jaas.config", None)
    if jaas is not None:
        made = _login(jaas) | made
    for name in _TYPES:
        if made.pop(name, "PEM").upper() != "PEM":
            raise CliError(
                f"{name}: only PEM is read here; make one of a .p12 by 'openssl pkcs12 -in STORE -nodes'",
                ExitCode.USAGE,
            )
    if (trusted := made.pop("ssl.truststore.location", None)) is not None:
        made.setdefault("ssl.ca.location", trusted)
    if (own := made.pop("ssl.keystore.location", None)) is not None:
        made.setdefault("ssl.certificate.location", own)
        made.setdefault("ssl.key.location", own)
    for theirs, ours in (
        ("ssl.truststore.certificates", "ssl.ca.pem"),
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
    ):
        if (value := made.pop(theirs, None)) is not None:
            made.setdefault(ours, value)
    if made.get("ssl.endpoint.identification.algorithm") == "":
        made["ssl.endpoint.identification.algorithm"] = "none"
    return {name: value for name, value in made.items() if not name.startswith(_STORES)}


def _login(jaas: str) -> dict[str, str]:
    try:
        modules = read_modules(jaas)
        login = login_of(modules[0])
    except JaasError as error:
        raise CliError(f"sasl.jaas.config: {error}", ExitCode.USAGE) from None
    if login is None:
        raise CliError("sasl.jaas.config: it has no username and password", ExitCode.USAGE)
    made = {"sasl.username": login.username, "sasl.password": login.password.reveal()}
    return made | {BY_TOKEN: "true"} if login.by_token else made
