"""Extras: whatever needs one that is not installed says so in one line, with the command to type."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ottla.extras import EXTRAS, extra_of, needed, require

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules whose names are not those of their packages.
MODULES = {"confluent-kafka": "confluent_kafka", "protobuf": "google.protobuf"}


def packages(requirements: list[str]) -> list[str]:
    names = [re.split(r"[<>=!;\[ ]", one)[0] for one in requirements]
    return [MODULES.get(name, name) for name in names if name != "ottla"]


def test_the_extras_are_those_of_the_package() -> None:
    declared = {
        extra: tuple(packages(requirements))
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra not in ("all", "test")
    }
    assert declared == EXTRAS


def test_all_is_every_extra_but_the_one_that_is_compiled() -> None:
    (all_of_them,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", all_of_them)[1].split(",")) == EXTRAS.keys() - {"gssapi"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("typer", "cli"),
        ("confluent_kafka.admin", "cli"),
        ("google", "cluster"),
        ("google.protobuf.message", "cluster"),
        ("cryptography", "tls"),
        ("typerx", None),
        ("os", None),
        (None, None),
    ],
)
def test_a_module_is_of_an_extra(module: str | None, extra: str | None) -> None:
    assert extra_of(module) == extra


def test_other_modules_stay_what_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), needed("this"):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_what_is_installed_is_not_missed() -> None:
    for extra in EXTRAS.keys() - {"gssapi"}:
        require("this", extra)


# ------------------------------------------------------------ a process that has no extra

# Hides every extra's modules, then runs each case and prints what came of it.
PROGRAM = """
import asyncio, contextlib, io, json, sys
from pathlib import Path

class Hidden:
    def find_spec(self, name, *_):
        if any(f"{name}.".startswith(f"{module}.") for module in HIDDEN):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

HIDDEN = json.loads(sys.argv[1])
folder = Path(sys.argv[2])
sys.meta_path.insert(0, Hidden())

from ottla.cli.local.layout import Request
from ottla.cli.local.secure import make as make_secure
from ottla.cli.local.up import up
from ottla.cli.main import main
from ottla.config import ConfigError
from ottla.env.clock import SystemClock
from ottla.extras import EXTRAS, MissingExtra, require
from ottla.metadata.stores import open_store
from ottla.process import run
from ottla.testing import Broker

(folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\\nx\\n-----END PRIVATE KEY-----\\n")
TLS = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(folder / "key.pem"),
    "listeners": "SSL://127.0.0.1:0"}
OAUTH = {"listeners": "SASL_PLAINTEXT://127.0.0.1:0", "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
    "sasl.mechanism.inter.broker.protocol": "PLAIN", "sasl.oauthbearer.jwks.endpoint.url": "file:///none",
    "listener.name.sasl_plaintext.plain.sasl.jaas.config":
        "org.apache.kafka.common.security.plain.PlainLoginModule required username=a password=b user_a=b;"}

def command(*words):
    with contextlib.redirect_stdout(io.StringIO()):
        main(words)

def serve(overrides, store=None):
    run(data=str(folder), listen=None, node_id=1, advertise=None, config_file=None, overrides=overrides,
        log_format="text", log_level="error", store=store)

CASES = {
    "ottla topic list": lambda: command("topic", "list"),
    "ottla serve --help": lambda: command("serve", "--help"),
    "ottla --help": lambda: command("--help"),
    "ottla": lambda: command(),
    "ottla --version": lambda: command("--version"),
    "ottla serve --store": lambda: command(
        "serve", "--data", str(folder), "--listen", "127.0.0.1:0", "--store", "etcd://h", "--node-id", "1"),
    "cluster up": lambda: up(folder, Request()),
    "cluster up --secure": lambda: make_secure(folder),
    "etcd": lambda: asyncio.run(open_store("etcd://h", cluster="c", clock=SystemClock())),
    "tls=True": lambda: Broker(tls=True),
    "keystore": lambda: serve(TLS),
    "tokens": lambda: serve(OAUTH),
    **{f"require {extra}": lambda extra=extra: require("this", extra) for extra in EXTRAS},
}
said = {}
for name, case in CASES.items():
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            case()
        except (MissingExtra, ConfigError, SystemExit) as error:
            print(error, file=errors)
    said[name] = errors.getvalue().splitlines()
with Broker(topics={"orders": 1}, users={"ann": "secret"}) as broker:
    broker.produce("orders", b"1")
    said["records"] = [record.value.decode() for record in broker.records("orders")]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each case writes to standard error, or raises, where no extra is installed."""
    # Ottla needs crc32c neither, which comes with kio.
    hidden = [module for modules in EXTRAS.values() for module in modules] + ["crc32c"]
    folder = tmp_path_factory.mktemp("extras")
    command = (sys.executable, "-c", PROGRAM, json.dumps(hidden), str(folder))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def named(what: str, extra: str, *, start: str = "") -> str:
    return f"{start}{what} needs the extra \"{extra}\": pip install 'ottla[{extra}]'"


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        ("ottla topic list", [named("the command 'topic'", "cli", start="ottla: "), "1"]),
        ("ottla serve --help", [named("the help of the command 'serve'", "cli", start="ottla: "), "1"]),
        ("ottla --help", [named("the command line", "cli", start="ottla: "), "1"]),
        ("ottla", [named("the command line", "cli", start="ottla: "), "1"]),
        ("ottla --version", ["0"]),
        ("ottla serve --store", [named("the store 'etcd://h'", "cluster", start="ottla: "), "1"]),
        ("cluster up", [named("the command 'cluster up'", "cluster")]),
        ("cluster up --secure", [named("--secure", "tls")]),
        ("etcd", [named("the store 'etcd://h'", "cluster")]),
        ("tls=True", [named("tls=True", "tls")]),
        ("keystore", [named("a listener's key (ssl.keystore.*)", "tls", start="ottla: listener SSL: ")]),
        ("tokens", [named("listener SASL_PLAINTEXT: OAUTHBEARER", "oauthbearer", start="ottla: ")]),
        *((f"require {extra}", [named("this", extra)]) for extra in EXTRAS),
    ],
)
def test_what_needs_an_extra_names_it(case: str, lines: list[str], said: dict[str, list[str]]) -> None:
    assert said[case] == lines


def test_the_embedded_broker_needs_none(said: dict[str, list[str]]) -> None:
    assert said["records"] == ["1"]
