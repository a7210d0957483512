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

from ottla.cli import app, serve
from ottla.config import BrokerConfig, parse_properties
from ottla.metadata.stores import parse_store
from ottla.node import NodeSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent
ZONES = ("a", "b", "c")


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


def etcd_options(arguments: Sequence[str]) -> dict[str, str]:
    options = {}
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        assert argument.startswith("--") and equals, argument
        options[name] = value
    return options


def check_etcd(members: dict[str, dict[str, str]], hosts: dict[str, str]) -> None:
    """Members with their options know one another, each by its own name and host."""
    everyone = ",".join(f"{name}=http://{hosts[name]}:2380" for name in members)
    for name, options in members.items():
        assert options["name"] == name
        assert options["initial-cluster"] == everyone
        assert options["initial-advertise-peer-urls"] == f"http://{hosts[name]}:2380"
        assert options["advertise-client-urls"] == f"http://{hosts[name]}:2379"
        assert options["listen-peer-urls"].endswith(":2380")
        assert options["listen-client-urls"].endswith(":2379")
        assert options["auto-compaction-mode"] == "periodic"
        assert options["auto-compaction-retention"] == "1h"
        check_etcd_flags(options)


def check_etcd_flags(names: Sequence[str] | dict[str, str]) -> None:
    if shutil.which("etcd") is None:
        return
    text = subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"--([a-z][\w-]+)", text.stdout + text.stderr))
    assert set(names) <= known


# -- every file -------------------------------------------------------------------------------------------


def test_every_file_is_in_the_list() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"]({path.name}" in text, path.name


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
    filled = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], command.replace("%i", instance))
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
    assert set(re.findall(r"\$\{(\w+)\}", command)) == environment(DEPLOY / "systemd" / "ottla.env").keys()


def test_the_unit_lets_a_node_stop_in_order_and_open_its_files() -> None:
    service = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"].removesuffix("s")) >= 60
    assert int(service["LimitNOFILE"]) >= 100_000
    data = parsed(unit_command("7")[2:]).data
    assert data in [f"/var/lib/{folder.replace('%i', '7')}" for folder in service["StateDirectory"].split()]
    for option in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"):
        assert service[option] == "yes"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "ottla@.service").read_text()
    unit = tmp_path / "ottla@.service"
    unit.write_text(text.replace("/opt/ottla/bin/ottla", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "ottla@" in line] == []


def test_the_drop_in_is_of_the_etcd_that_nodes_are_told_of() -> None:
    text = (DEPLOY / "systemd" / "etcd-ottla.conf").read_text()
    values = dict(re.findall(r"^Environment=ETCD_(\w+?)=(.*)$", text, re.MULTILINE))
    options = {name.lower().replace("_", "-"): value for name, value in values.items()}
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
    assert all(one["entrypoint"] == ["etcd"] for one in members.values())
    options = {name: etcd_options(one["command"]) for name, one in members.items()}
    check_etcd(options, {name: name for name in members})


def test_nodes_in_compose_find_etcd_and_are_found(compose: Any) -> None:
    nodes = of_kind(compose, "ottla")
    ids, racks, ports = set(), set(), set()
    for name, one in nodes.items():
        command, *arguments = one["command"]
        assert command == "serve"
        options = parsed(arguments)
        assert options.store is not None
        assert [e.rsplit(":", 1)[0] for e in parse_store(options.store, "c").endpoints] == one["depends_on"]
        assert sorted(one["depends_on"]) == sorted(of_kind(compose, "etcd"))
        found = config(options)
        check_replication(found)
        inside, outside = found.listeners()
        to_inside, to_outside = found.advertised_listeners()
        assert (to_inside.host, to_inside.port) == (name, inside.port)
        assert (to_outside.host, to_outside.port) == ("localhost", outside.port)
        assert found.get("inter.broker.listener.name") == inside.listener
        assert one["ports"] == [f"{outside.port}:{outside.port}"]
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
        data = next(a.split("=", 1)[1] for a in one["command"] if a.startswith(("--data=", "--data-dir=")))
        assert data.startswith(f"{path}/")
        assert one["image"] == "ottla"
    assert sorted(used) == sorted(compose["volumes"])


def test_one_service_builds_the_image(compose: Any) -> None:
    (build,) = (one["build"] for one in compose["services"].values() if "build" in one)
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


# -- the image --------------------------------------------------------------------------------------------


def test_the_image_copies_what_is_there_and_serves() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    wanted = (DEPLOY / "Dockerfile.dockerignore").read_text()
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}\n" in wanted
    (words,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    command, *arguments = yaml.safe_load(words)
    assert command == "serve"
    options = parsed(arguments)
    assert options.listen == "0.0.0.0:9092"
    assert f'VOLUME ["{options.data}"]' in text
    assert 'ENTRYPOINT ["ottla"]' in text
    assert "sh /tmp/debian-packages.sh etcd" in text
    assert re.search(r"^\s+etcd\) ", (ROOT / "scripts" / "debian-packages.sh").read_text(), re.MULTILINE)


# -- Kubernetes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes() -> dict[tuple[str, str], Any]:
    """All objects, by kind and name."""
    found = {}
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            key = document["kind"], document["metadata"]["name"]
            assert key not in found
            found[key] = document
    return found


def container(stateful_set: Any) -> Any:
    (one,) = stateful_set["spec"]["template"]["spec"]["containers"]
    return one


def node_arguments(stateful_set: Any, ordinal: int, tmp_path: Path) -> list[str]:
    """What `ottla` is called with in a pod: the pod's shell decides."""
    one = container(stateful_set)
    name = stateful_set["metadata"]["name"]
    values = {"POD_NAME": f"{name}-{ordinal}", "POD_NAMESPACE": "prod"}
    for variable in one["env"]:
        values.setdefault(variable["name"], variable.get("value", ""))
    stub = tmp_path / "ottla"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        [*one["command"], *one["args"]],
        env={**values, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def zones(kubernetes: dict[tuple[str, str], Any]) -> dict[str, Any]:
    return {zone: kubernetes["StatefulSet", f"ottla-{zone}"] for zone in ZONES}


def test_pods_are_nodes_with_ids_racks_and_addresses_of_their_own(
    kubernetes: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    file = kubernetes["ConfigMap", "ottla"]["data"]["server.properties"]
    ids = set()
    for zone, stateful_set in zones(kubernetes).items():
        for ordinal in (0, 1, 11, 99):
            command, *arguments = node_arguments(stateful_set, ordinal, tmp_path)
            assert command == "serve"
            options = parsed(arguments)
            ids.add(options.node_id)
            assert options.rack == f"zone-{zone}"
            assert options.advertise == f"ottla-{zone}-{ordinal}.ottla.prod.svc:9092"
            assert options.listen == "0.0.0.0:9092"
            check_replication(config(options, file))
    assert len(ids) == 4 * len(ZONES)


def test_zones_differ_in_nothing_but_their_zone(kubernetes: dict[tuple[str, str], Any]) -> None:
    texts = set()
    for zone, stateful_set in zones(kubernetes).items():
        text = yaml.safe_dump(stateful_set)
        text = text.replace(f"zone-{zone}", "ZONE").replace(f"ottla-{zone}", "NAME")
        text = text.replace(f"zone: {zone}\n", "zone: Z\n")
        texts.add(re.sub(r"name: ZONE_BASE\n(\s+)value: '\d00'", "BASE", text))
    assert len(texts) == 1


def test_a_rack_is_the_zone_that_its_pods_are_in(
    kubernetes: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    for stateful_set in zones(kubernetes).values():
        affinity = stateful_set["spec"]["template"]["spec"]["affinity"]
        (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        (expression,) = term["matchExpressions"]
        assert expression["key"] == "topology.kubernetes.io/zone"
        rack = parsed(node_arguments(stateful_set, 0, tmp_path)[1:]).rack
        assert expression["values"] == [rack]


@pytest.mark.parametrize("app_name", ["ottla", "etcd"])
def test_pods_are_kept_apart_and_evicted_one_at_a_time(
    kubernetes: dict[tuple[str, str], Any], app_name: str
) -> None:
    budget = kubernetes["PodDisruptionBudget", app_name]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": {"app": app_name}}}
    sets = [one for (kind, name), one in kubernetes.items() if kind == "StatefulSet" and app_name in name]
    assert len(sets) == {"ottla": 3, "etcd": 1}[app_name]
    for one in sets:
        pod = one["spec"]["template"]
        assert pod["metadata"]["labels"]["app"] == app_name
        assert one["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        (rule,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule == {
            "labelSelector": {"matchLabels": {"app": app_name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        service = kubernetes["Service", one["spec"]["serviceName"]]["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
        assert service["selector"] == {"app": app_name}
        ports = {port["containerPort"] for port in container(one)["ports"]}
        assert {port["port"] for port in service["ports"]} == ports
        # A shell between would keep SIGTERM for itself.
        command = container(one)["command"]
        assert command == ["etcd"] or container(one)["args"][0].startswith("exec ottla ")


def test_members_in_kubernetes_find_one_another_and_are_found(
    kubernetes: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    stateful_set = kubernetes["StatefulSet", "etcd"]
    spec = stateful_set["spec"]
    assert spec["podManagementPolicy"] == "Parallel", "the first would wait for the second to be ready"
    names = [f"etcd-{i}" for i in range(spec["replicas"])]
    hosts = {name: f"{name}.{spec['serviceName']}" for name in names}
    members = {
        name: etcd_options([a.replace("$(POD_NAME)", name) for a in container(stateful_set)["args"]])
        for name in names
    }
    check_etcd(members, hosts)
    (mount,) = container(stateful_set)["volumeMounts"]
    assert members["etcd-0"]["data-dir"].startswith(mount["mountPath"])
    for one in zones(kubernetes).values():
        store = parsed(node_arguments(one, 0, tmp_path)[1:]).store
        assert store == "etcd://" + ",".join(f"{host}:2379" for host in hosts.values())


def test_what_a_node_is_told_of_is_mounted(kubernetes: dict[tuple[str, str], Any], tmp_path: Path) -> None:
    for one in zones(kubernetes).values():
        options = parsed(node_arguments(one, 0, tmp_path)[1:])
        mounts = {mount["name"]: mount["mountPath"] for mount in container(one)["volumeMounts"]}
        assert options.data is not None and options.data.startswith(f"{mounts['data']}/")
        assert options.config_file == f"{mounts['config']}/server.properties"
        (claim,) = one["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "data"
        (volume,) = one["spec"]["template"]["spec"]["volumes"]
        assert volume["configMap"]["name"] == "ottla"


def test_a_pod_waits_for_the_others_before_it_stops_and_has_the_time(
    kubernetes: dict[tuple[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in zones(kubernetes).values():
        pod, node = one["spec"]["template"]["spec"], container(one)
        port = f"127.0.0.1:{node['ports'][0]['containerPort']}"
        program, *arguments = node["lifecycle"]["preStop"]["exec"]["command"]
        waits_s = float(arguments[arguments.index("--timeout") + 1])
        assert program == "ottla" and arguments[-1] == port
        assert pod["terminationGracePeriodSeconds"] >= waits_s + 60
        assert node["readinessProbe"]["tcpSocket"]["port"] == node["ports"][0]["name"]
        # All of it is a command line that ottla has: only its time is shortened here.
        arguments[arguments.index("--timeout") + 1] = "0"
        arguments[-1] = "127.0.0.1:1"
        with pytest.raises(app.CliError, match="cannot reach a broker"):
            app.run(arguments)


def test_nodes_are_restarted_one_by_one_only(kubernetes: dict[tuple[str, str], Any]) -> None:
    for one in zones(kubernetes).values():
        assert one["spec"]["updateStrategy"] == {"type": "OnDelete"}
    script = DEPLOY / "kubernetes" / "roll.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)


KUBECTL = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
    *"get pods"*) printf 'pod/ottla-b-0\\npod/ottla-a-0\\n' ;;
    *"exec pod/ottla-a-0"*) exit "$UNWELL" ;;
    *" wait "*) test -e "$CALLS.once" || { touch "$CALLS.once"; exit 1; } ;;
esac
"""


@pytest.mark.parametrize("unwell", [0, 1])
def test_rolling_goes_on_only_when_the_last_node_is_well(tmp_path: Path, unwell: int) -> None:
    kubectl, calls = tmp_path / "kubectl", tmp_path / "calls"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls), "UNWELL": str(unwell)}
    done = subprocess.run([DEPLOY / "kubernetes" / "roll.sh", "prod"], env=environment, check=False)
    assert done.returncode == unwell
    deleted = re.findall(r"--namespace prod delete (\S+)", calls.read_text())
    assert deleted == (["pod/ottla-a-0"] if unwell else ["pod/ottla-a-0", "pod/ottla-b-0"])
