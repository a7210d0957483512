"""The deployment files: their command lines are ones that `ottla` and etcd understand, and they agree with
one another on names, ports and places."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ottla import __version__
from ottla.cli import serve
from ottla.config import BrokerConfig, parse_properties
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.metadata.stores import parse_store
from ottla.node import NodeSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
SECURED = DEPLOY / "secured"
SECRETS = "/etc/ottla-secrets"
# After so long without a sign of life others lead what a node led.
SESSION_S = int(BrokerConfig({}).get("broker.session.timeout.ms")) // 1000


def parsed(arguments: Sequence[str]) -> serve.Serve:
    """The options of `ottla serve`, checked as it checks them."""
    options = serve.parse(arguments)
    assert options is not None, arguments
    options.check()
    return options


def config(options: serve.Serve, file: str = "") -> BrokerConfig:
    """The configuration of a node with these options; nothing of it may be without effect."""
    host, port = options.listen.rsplit(":", 1) if options.listen else (None, None)
    settings = NodeSettings(
        data=options.data,
        host=host,
        port=None if port is None else int(port),
        node_id=options.node_id,
        rack=options.rack,
        properties=parse_properties(file) | options.overrides,
    )
    found = BrokerConfig(settings.to_properties())
    assert not list(found.warnings)
    assert not list(found.idle)
    return found


def check_replication(found: BrokerConfig) -> None:
    """Three replicas of everything, two of which have what is acknowledged."""
    assert found.get("default.replication.factor") == found.get("offsets.topic.replication.factor") == 3
    assert found.get("min.insync.replicas") == 2


def of_environment(values: dict[str, str]) -> dict[str, str]:
    """What etcd takes of its environment, as options."""
    return {
        name.removeprefix("ETCD_").lower().replace("_", "-"): value
        for name, value in values.items()
        if name.startswith("ETCD_")
    }


def check_etcd(members: dict[str, dict[str, str]], hosts: dict[str, str], scheme: str = "http") -> None:
    """Members with their options know one another, each by its own name and host."""
    everyone = ",".join(f"{name}={scheme}://{hosts[name]}:2380" for name in members)
    for name, options in members.items():
        assert options["name"] == name
        assert options["initial-cluster"] == everyone
        assert options["initial-advertise-peer-urls"] == f"{scheme}://{hosts[name]}:2380"
        assert options["advertise-client-urls"] == f"{scheme}://{hosts[name]}:2379"
        assert options["listen-peer-urls"].endswith(":2380")
        assert options["listen-client-urls"].endswith(":2379")
        assert options["auto-compaction-mode"] == "periodic"
        assert options["auto-compaction-retention"] == "1h"
        check_etcd_flags(options)


def check_secured_node(arguments: Sequence[str], members: Sequence[str]) -> tuple[str, int]:
    """A node that is started so is a secured one of the cluster of these members; where clients find it."""
    options = parsed(arguments)
    assert options.store is not None
    query = dict(pair.split("=", 1) for pair in options.store.partition("?")[2].split("&"))
    assert query == {
        "ca": f"{SECRETS}/ca.pem",
        "user": "ottla",
        "password-file": f"{SECRETS}/etcd-ottla.password",
    }
    assert options.store.startswith("etcds://")
    assert [one.rsplit(":", 1)[0] for one in parse_store(options.store, "c").endpoints] == list(members)
    assert options.config_file == "/etc/ottla/server.properties"
    found = config(options, (SECURED / "server.properties").read_text())
    check_replication(found)
    clients, nodes = found.listeners()
    to_clients, to_nodes = found.advertised_listeners()
    assert (clients.listener, clients.protocol) == ("CLIENTS", "SASL_SSL")
    assert (nodes.listener, nodes.protocol, nodes.port) == ("NODES", "SSL", 9094)
    assert found.inter_broker_listener == "NODES"
    assert (clients.port, nodes.port) == (to_clients.port, to_nodes.port)
    assert found.for_listener("NODES").get("ssl.client.auth") == "required"
    assert found.get("authorizer.class.name") == STANDARD_AUTHORIZER
    for name in ("keystore", "truststore"):
        assert found.for_listener("CLIENTS").get(f"ssl.{name}.location").startswith(f"{SECRETS}/")
    return to_clients.host, to_clients.port


def check_secured_etcd(options: dict[str, str], secrets: str) -> None:
    for name, value in options.items():
        if name.endswith("-urls"):
            assert value.startswith("https://"), name
    for part in ("", "peer-"):
        assert options[f"{part}cert-file"] == f"{secrets}/etcd.crt"
        assert options[f"{part}key-file"] == f"{secrets}/etcd.key"
    assert options["peer-trusted-ca-file"] == f"{secrets}/ca.pem"
    assert options["peer-client-cert-auth"] == "true"


def check_etcd_flags(names: Sequence[str] | dict[str, str]) -> None:
    if shutil.which("etcd") is None:
        return
    text = subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"--([a-z][\w-]+)", text.stdout + text.stderr))
    assert set(names) <= known


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder for the PATH. Programs in it are scripts of a test; ``sleep`` takes no time."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    stub(folder, "sleep", "")
    return folder


def stub(folder: Path, name: str, script: str) -> None:
    """A program that writes down how it was called, then does as the script says."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)


def run_with(stubs: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a command with the stubs, and what these were called with, without ``sleep``."""
    done = subprocess.run(
        command,
        env={"PATH": f"{stubs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = (stubs / "calls").read_text().splitlines()
    return done, [call for call in calls if not call.startswith("sleep")]


# -- every file -------------------------------------------------------------------------------------------


def test_every_file_is_in_the_list() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"]({path.name}" in text, path.name


def test_commands_of_the_page_name_files_that_there_are() -> None:
    text = (DEPLOY / "README.md").read_text()
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    # certificates.sh makes the secrets.
    found = [path for path in re.findall(r"\bdeploy/[\w./-]+", blocks) if "/secrets" not in path]
    assert len(found) > 15
    assert [path for path in found if not (ROOT / path).exists()] == []


# -- systemd ----------------------------------------------------------------------------------------------


class Unit(configparser.RawConfigParser):
    """A unit file: options keep their case, and may be there more than once."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        self.read(path)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def environment(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def unit_command(instance: str) -> list[str]:
    command = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]["ExecStart"]
    values = environment(DEPLOY / "systemd" / "ottla.env")
    filled = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], command.replace("%i", instance))
    assert "$" not in filled and "%" not in filled
    return shlex.split(filled)


def test_the_unit_starts_a_node_of_a_cluster() -> None:
    program, command, *arguments = unit_command("7")
    assert (program, command) == ("/opt/ottla/bin/ottla", "serve")
    options = parsed(arguments)
    assert (options.node_id, options.rack, options.cluster) == (7, "rack-1", "ottla")
    assert options.store is not None and options.listen is not None and options.advertise is not None
    assert len(parse_store(options.store, "ottla").endpoints) == 3
    assert options.listen.rsplit(":", 1)[1] == options.advertise.rsplit(":", 1)[1]
    check_replication(config(options, (DEPLOY / "systemd" / "server.properties").read_text()))


def test_every_setting_of_the_unit_is_used_and_none_is_missing() -> None:
    command = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]["ExecStart"]
    assert set(re.findall(r"\$\{?(\w+)\}?", command)) == environment(DEPLOY / "systemd" / "ottla.env").keys()


def test_the_unit_lets_a_node_stop_in_order_and_open_its_files() -> None:
    service = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"].removesuffix("s")) >= 60
    assert int(service["LimitNOFILE"]) >= 100_000
    data = parsed(unit_command("7")[2:]).data
    assert data in [f"/var/lib/{folder.replace('%i', '7')}" for folder in service["StateDirectory"].split()]
    for option in (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "RestrictSUIDSGID",
        "MemoryDenyWriteExecute",
    ):
        assert service[option] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"


def test_systemd_waits_for_a_node_and_watches_its_loop() -> None:
    service = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]
    # What tests/scenarios/test_service_manager.py shows of the process. A shell would be another process.
    assert service["Type"] == "notify"
    assert "NotifyAccess" not in service, "main is the default"
    assert service["ExecStart"].startswith("/")
    assert int(service["WatchdogSec"].removesuffix("s")) > 2 * SESSION_S
    assert service["TimeoutStartSec"] == "infinity"
    assert service["Restart"] == "on-failure"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("secured", [False, True])
def test_systemd_understands_the_unit(tmp_path: Path, secured: bool) -> None:
    unit = tmp_path / "ottla@.service"
    files = {unit: DEPLOY / "systemd" / unit.name}
    if secured:
        (tmp_path / "ottla@.service.d").mkdir()
        files[tmp_path / "ottla@.service.d" / "secured.conf"] = SECURED / "ottla.conf"
    for path, given in files.items():
        path.write_text(given.read_text().replace("/opt/ottla/bin/ottla", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line or "ottla@" in line] == []


def test_the_drop_in_is_of_the_etcd_that_nodes_are_told_of() -> None:
    text = (DEPLOY / "systemd" / "etcd-ottla.conf").read_text()
    options = of_environment(dict(re.findall(r"^Environment=(ETCD_\w+?)=(.*)$", text, re.MULTILINE)))
    check_etcd_flags(options)
    members = dict(pair.split("=", 1) for pair in options["initial-cluster"].split(","))
    assert members[options["name"]] == options["initial-advertise-peer-urls"] == options["listen-peer-urls"]
    store = environment(DEPLOY / "systemd" / "ottla.env")["OTTLA_STORE"]
    hosts = [url.removeprefix("http://").rsplit(":", 1)[0] for url in members.values()]
    assert list(parse_store(store, "c").endpoints) == [f"{host}:2379" for host in hosts]
    assert options["advertise-client-urls"] == f"http://{hosts[0]}:2379"


# -- compose ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def of_kind(compose: Any, kind: str) -> dict[str, Any]:
    return {name: one for name, one in compose["services"].items() if name.startswith(f"{kind}-")}


def test_compose_starts_three_members_and_three_nodes(compose: Any) -> None:
    assert len(of_kind(compose, "etcd")) == len(of_kind(compose, "ottla")) == 3
    assert len(compose["services"]) == 6


def test_members_in_compose_find_one_another(compose: Any) -> None:
    members = of_kind(compose, "etcd")
    assert {one["image"] for one in members.values()} == {"quay.io/coreos/etcd:v3.5.21"}
    options = {name: of_environment(one["environment"]) for name, one in members.items()}
    check_etcd(options, {name: name for name in members})


def test_nodes_in_compose_find_etcd_and_are_found(compose: Any) -> None:
    nodes = of_kind(compose, "ottla")
    ids, racks, ports = set(), set(), set()
    for name, one in nodes.items():
        command, *arguments = one["command"]
        assert command == "serve"
        options = parsed(arguments)
        assert options.store is not None
        assert [e.rsplit(":", 1)[0] for e in parse_store(options.store, "c").endpoints] == list(
            one["depends_on"]
        )
        assert sorted(one["depends_on"]) == sorted(of_kind(compose, "etcd"))
        found = config(options)
        check_replication(found)
        inside, outside = found.listeners()
        to_inside, to_outside = found.advertised_listeners()
        assert (to_inside.host, to_inside.port) == (name, inside.port)
        assert (to_outside.host, to_outside.port) == ("localhost", outside.port)
        assert found.get("inter.broker.listener.name") == inside.listener
        # Of this machine only.
        assert one["ports"] == [f"127.0.0.1:{outside.port}:{outside.port}"]
        ids.add(options.node_id)
        racks.add(options.rack)
        ports.add(outside.port)
    assert len(ids) == len(racks) == len(ports) == 3


def test_data_in_compose_is_in_volumes_of_their_own(compose: Any) -> None:
    used = []
    for one in compose["services"].values():
        (volume,) = one["volumes"]
        name, path = volume.split(":")
        used.append(name)
        settings = one.get("command") or [f"--data={one['environment']['ETCD_DATA_DIR']}"]
        data = next(a.removeprefix("--data=") for a in settings if a.startswith("--data="))
        assert data.startswith(f"{path}/")
    assert sorted(used) == sorted(compose["volumes"])


def test_nodes_start_when_etcd_is_healthy(compose: Any) -> None:
    for one in of_kind(compose, "etcd").values():
        program, *arguments = one["healthcheck"]["test"][1:]
        assert (program, arguments) == ("/usr/local/bin/etcdctl", ["endpoint", "health"])
    for one in of_kind(compose, "ottla").values():
        assert one["healthcheck"]["test"] == ["CMD", "ottla-healthy", "/readyz"]
        assert "--metrics=0.0.0.0:9308" in one["command"]
        assert all(why == {"condition": "service_healthy"} for why in one["depends_on"].values())
        assert one["read_only"] is True and one["cap_drop"] == ["ALL"] and one["tmpfs"] == ["/tmp"]


def test_one_service_builds_the_image(compose: Any) -> None:
    assert {one["image"] for one in of_kind(compose, "ottla").values()} == {"ottla"}
    (build,) = (one["build"] for one in compose["services"].values() if "build" in one)
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


# -- the image --------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, with their arguments in one line each."""
    lines = [
        line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]
    known = {"FROM", "RUN", "COPY", "ARG", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE"}
    assert {name for name, _ in found} <= known | {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    return found


def of(name: str) -> list[str]:
    return [words for one, words in instructions() if one == name]


def test_the_image_copies_what_is_there() -> None:
    wanted = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    here = [words.split() for words in of("COPY") if not words.startswith("--from=")]
    assert len(here) == 4
    for *sources, _ in here:
        for source in sources:
            assert (ROOT / source).exists()
            # The folder may be let in as a whole.
            assert {f"!{source}", f"!{Path(source).parent}"} & set(wanted)
    for line in wanted:
        assert not line.startswith("!") or (ROOT / line[1:]).exists()


def test_the_image_is_pinned_and_labelled() -> None:
    bases = {words.split()[0] for words in of("FROM")}
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    (labels,) = of("LABEL")
    found = dict(re.findall(r'([\w.]+)="([^"]*)"', labels))
    assert of("ARG") == [f"VERSION={__version__}"]
    assert found["org.opencontainers.image.version"] == "${VERSION}"
    assert found["org.opencontainers.image.base.name"] == base
    assert {"title", "description", "licenses"} <= {name.rpartition(".")[2] for name in found}


def test_the_image_runs_as_a_user_with_data_in_a_volume_and_no_etcd() -> None:
    (user,) = of("USER")
    assert user == "10001:10001" and "useradd --uid 10001 " in " ".join(of("RUN"))
    text = (DEPLOY / "container" / "ottla-container").read_text()
    (data,) = re.findall(r"--data (\S+)", text)
    assert of("VOLUME") == [f'["{data}"]']
    assert f"install --directory --owner ottla --group ottla {data}" in " ".join(of("RUN"))
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert "etcd" not in (DEPLOY / "Dockerfile").read_text()


def test_options_of_the_environment_are_words_and_no_patterns_of_files(tmp_path: Path) -> None:
    program = tmp_path / "ottla"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o700)
    (tmp_path / "a=1").touch()
    done = subprocess.run(
        [DEPLOY / "container" / "ottla-container", "--rack", "b c"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "OTTLA_OPTIONS": "--set a=*", "OTTLA_ADVERTISE": "x y:1"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[words.index("--advertise") + 1] == "x y:1"
    assert words[-4:] == ["--set", "a=*", "--rack", "b c"]


def test_programs_of_the_image_can_be_run() -> None:
    # Nothing stands between: a shell would keep SIGTERM for itself.
    assert of("ENTRYPOINT") == ['["ottla-container"]']
    (health,) = of("HEALTHCHECK")
    assert health.endswith(' CMD ["ottla-healthy"]')
    for path in (DEPLOY / "container").iterdir():
        assert path.stat().st_mode & 0o111
        shell = path.read_text().splitlines()[0].removeprefix("#!")
        subprocess.run([shell, "-n", path], check=True)


# -- the recipe of docs/OPERATING.md -------------------------------------------------------------------------


def recipe() -> str:
    page = (ROOT / "docs" / "OPERATING.md").read_text().split("## Restart nodes one by one\n")[1]
    found = re.findall(r"```sh\n(.*?)```", page.split("\n## ")[0], re.DOTALL)[0]
    return str(found)


def test_the_recipe_restarts_each_machines_own_node(stubs: Path) -> None:
    for program in ("ssh", "ottla"):
        stub(stubs, program, "")
    done, calls = run_with(stubs, "sh", "-c", recipe())
    assert (done.returncode, done.stderr) == (0, "")
    wait = "ottla cluster wait --nodes 3"
    assert calls == [
        line for machine, node in (("a", 1), ("b", 2), ("c", 3))
        for line in (f"ssh {machine} systemctl restart ottla@{node}", wait)
    ]  # fmt: skip


@pytest.mark.parametrize("failing", ["ssh", "ottla"])
def test_the_recipe_stops_where_a_node_is_not_in_sync_again(stubs: Path, failing: str) -> None:
    for program in ("ssh", "ottla"):
        stub(stubs, program, "exit 1" if program == failing else "")
    done, calls = run_with(stubs, "sh", "-c", recipe())
    assert done.stderr == "stopped behind a:1\n"
    assert not [call for call in calls if call.startswith("ssh b")]
