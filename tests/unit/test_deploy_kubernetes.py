"""deploy/kubernetes, and deploy/secured as an overlay of it: what kustomize builds of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kustomize_support import build
from test_deploy import (
    DEPLOY,
    check_etcd,
    check_replication,
    check_secured_etcd,
    check_secured_node,
    config,
    of_environment,
    parsed,
    run_with,
    stub,
    stubs,
)

from ottla import __version__
from ottla.cli import app

__all__ = ["stubs"]

ZONES = ("a", "b", "c")
SECURED = DEPLOY / "secured"
OVERLAYS = ("kubernetes/plain", "kubernetes/trial", "secured")
SECRETS = ("ca.pem", "node.pem", "etcd-ottla.password", "etcd.crt", "etcd.key")
Objects = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/ with secrets, which are not real ones."""
    made = tmp_path_factory.mktemp("tree") / "deploy"
    for name in ("kubernetes", "secured"):
        shutil.copytree(DEPLOY / name, made / name, ignore=shutil.ignore_patterns("secrets"))
    (made / "secured" / "secrets").mkdir()
    for name in SECRETS:
        (made / "secured" / "secrets" / name).write_text(name)
    return made


@pytest.fixture(scope="module")
def built(folder: Path) -> dict[str, Objects]:
    return {name: build(folder / name) for name in OVERLAYS}


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, built: dict[str, Objects]) -> Objects:
    return built[request.param]


@pytest.fixture(scope="module")
def plain(built: dict[str, Objects]) -> Objects:
    return built["kubernetes/plain"]


def container(stateful_set: Any) -> Any:
    (one,) = stateful_set["spec"]["template"]["spec"]["containers"]
    return one


def variables(stateful_set: Any, ordinal: int) -> dict[str, str]:
    """The environment of a container, with references filled in as Kubernetes does."""
    values: dict[str, str] = {}
    fields = {
        "metadata.name": f"{stateful_set['metadata']['name']}-{ordinal}",
        "metadata.namespace": "prod",
    }
    for one in container(stateful_set)["env"]:
        if "valueFrom" in one:
            values[one["name"]] = fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            # References to those before it; one to a later variable stays as it is, so it fails here.
            values[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], one["value"])
    return values


def node_arguments(stateful_set: Any, ordinal: int, tmp_path: Path) -> list[str]:
    """What `ottla` is called with in a pod: the pod's shell decides."""
    one = container(stateful_set)
    found = tmp_path / "ottla"
    found.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    found.chmod(0o755)
    done = subprocess.run(
        [*one["command"], *one["args"]],
        env={**variables(stateful_set, ordinal), "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    command, *arguments = done.stdout.splitlines()
    assert command == "serve"
    # A shell between would keep SIGTERM for itself.
    assert one["args"][0].startswith("exec ottla ")
    return arguments


def zones(objects: Objects) -> dict[str, Any]:
    return {zone: objects["StatefulSet", f"ottla-{zone}"] for zone in ZONES}


def etcd_members(objects: Objects) -> dict[str, dict[str, str]]:
    one = objects["StatefulSet", "etcd"]
    ordinals = range(one["spec"]["replicas"])
    return {f"etcd-{i}": of_environment(variables(one, i)) for i in ordinals}


# -- building ---------------------------------------------------------------------------------------------


def by_kubectl(folder: Path) -> Objects:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_builds_the_same(folder: Path, built: dict[str, Objects], name: str) -> None:
    assert by_kubectl(folder / name) == built[name]


def test_the_pages_overlay_names_an_image_in_a_registry(folder: Path, plain: Objects) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    root = folder.parent
    (root / "kustomization.yaml").write_text(textwrap.dedent(f"  {block.strip()}"))
    objects = build(root)
    assert objects.keys() == plain.keys()
    for one in zones(objects).values():
        assert container(one)["image"] == f"registry.example.org/ottla:{__version__}"
    assert container(objects["StatefulSet", "etcd"]) == container(plain["StatefulSet", "etcd"])
    if shutil.which("kubectl") is not None:
        assert by_kubectl(root) == objects


def test_an_overlay_has_all_objects(overlay: Objects) -> None:
    secrets = {key for key in overlay if key[0] == "Secret"}
    assert overlay.keys() - secrets == {
        ("ConfigMap", "ottla"),
        *(("Service", name) for name in ("etcd", "ottla", "ottla-bootstrap")),
        *(("StatefulSet", name) for name in ("etcd", "ottla-a", "ottla-b", "ottla-c")),
        *(("PodDisruptionBudget", name) for name in ("etcd", "ottla")),
        *(("NetworkPolicy", name) for name in ("etcd", "ottla")),
    }


def test_images_are_pinned(overlay: Objects) -> None:
    assert container(overlay["StatefulSet", "etcd"])["image"] == "quay.io/coreos/etcd:v3.5.21"
    for one in zones(overlay).values():
        assert container(one)["image"] == f"ottla:{__version__}"


# -- nodes ------------------------------------------------------------------------------------------------


def test_pods_are_nodes_with_ids_racks_and_addresses_of_their_own(overlay: Objects, tmp_path: Path) -> None:
    file = overlay["ConfigMap", "ottla"]["data"]["server.properties"]
    ids = set()
    for zone, stateful_set in zones(overlay).items():
        for ordinal in (0, 1, 11, 99):
            options = parsed(node_arguments(stateful_set, ordinal, tmp_path))
            ids.add(options.node_id)
            assert options.rack == f"zone-{zone}"
            found = config(options, file)
            check_replication(found)
            host = f"ottla-{zone}-{ordinal}.ottla.prod.svc"
            assert [(one.listener, one.host, one.port) for one in found.advertised_listeners()] == [
                ("CLIENTS", host, 9092),
                ("NODES", host, 9094),
            ]
            assert found.inter_broker_listener == "NODES"
    assert len(ids) == 4 * len(ZONES)


def test_a_rack_is_the_zone_that_its_pods_are_in(plain: Objects, tmp_path: Path) -> None:
    for stateful_set in zones(plain).values():
        rack = parsed(node_arguments(stateful_set, 0, tmp_path)).rack
        pod = stateful_set["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"topology.kubernetes.io/zone": rack}


def test_zones_differ_in_nothing_but_their_zone(overlay: Objects) -> None:
    texts = set()
    for zone, stateful_set in zones(overlay).items():
        text = yaml.safe_dump(stateful_set)
        text = text.replace(f"zone-{zone}", "ZONE").replace(f"ottla-{zone}", "NAME")
        text = text.replace(f"zone: {zone}\n", "zone: Z\n")
        texts.add(re.sub(r"name: ZONE_BASE\n(\s+)value: '\d00'", "BASE", text))
    assert len(texts) == 1


def test_what_a_node_is_told_of_is_mounted(overlay: Objects, tmp_path: Path) -> None:
    for one in zones(overlay).values():
        options = parsed(node_arguments(one, 0, tmp_path))
        mounts = {mount["name"]: mount["mountPath"] for mount in container(one)["volumeMounts"]}
        assert options.data is not None and options.data.startswith(f"{mounts['data']}/")
        assert options.config_file == f"{mounts['config']}/server.properties"
        (claim,) = one["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "data"
        volumes = {volume["name"]: volume for volume in one["spec"]["template"]["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == "ottla"
        assert mounts.keys() == volumes.keys() | {"data"}


def test_options_for_one_start_reach_the_node(overlay: Objects, tmp_path: Path) -> None:
    for stateful_set in zones(overlay).values():
        env = container(stateful_set)["env"]
        env.append({"name": "OTTLA_OPTIONS", "value": "--replace"})
        try:
            assert parsed(node_arguments(stateful_set, 0, tmp_path)).replace
        finally:
            env.pop()


# -- etcd -------------------------------------------------------------------------------------------------


def test_members_find_one_another_and_are_found(plain: Objects, tmp_path: Path) -> None:
    stateful_set = plain["StatefulSet", "etcd"]
    spec = stateful_set["spec"]
    assert spec["podManagementPolicy"] == "Parallel", "the first would wait for the second to be ready"
    members = etcd_members(plain)
    hosts = {name: f"{name}.{spec['serviceName']}" for name in members}
    check_etcd(members, hosts)
    (mount,) = container(stateful_set)["volumeMounts"]
    assert members["etcd-0"]["data-dir"].startswith(mount["mountPath"])
    for one in zones(plain).values():
        store = parsed(node_arguments(one, 0, tmp_path)).store
        assert store == "etcd://" + ",".join(f"{host}:2379" for host in hosts.values())


# -- pods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app_name", ["ottla", "etcd"])
def test_pods_are_kept_apart_and_evicted_one_at_a_time(plain: Objects, app_name: str) -> None:
    budget = plain["PodDisruptionBudget", app_name]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": {"app": app_name}}}
    sets = [one for (kind, name), one in plain.items() if kind == "StatefulSet" and app_name in name]
    assert len(sets) == {"ottla": 3, "etcd": 1}[app_name]
    for one in sets:
        pod = one["spec"]["template"]
        assert pod["metadata"]["labels"]["app"] == app_name
        assert one["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (rule,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule == {
            "labelSelector": {"matchLabels": {"app": app_name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        service = plain["Service", one["spec"]["serviceName"]]["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
        assert service["selector"] == {"app": app_name}
        ports = {port["containerPort"] for port in container(one)["ports"]}
        assert {port["port"] for port in service["ports"]} == ports


def test_all_pods_of_a_trial_fit_on_one_machine(built: dict[str, Objects]) -> None:
    cpu_m = 0
    for (kind, _), one in built["kubernetes/trial"].items():
        if kind == "StatefulSet":
            pod = one["spec"]["template"]["spec"]
            assert not pod.keys() & {"affinity", "nodeSelector"}
            requests = container(one)["resources"]["requests"]
            cpu_m += one["spec"]["replicas"] * int(requests["cpu"].removesuffix("m"))
    assert cpu_m <= 500


def test_pods_keep_to_the_restricted_standard(overlay: Objects) -> None:
    """Pod Security Standards, `restricted`; and files outside of volumes cannot be written."""
    for (kind, _), one in overlay.items():
        if kind != "StatefulSet":
            continue
        pod, inside = one["spec"]["template"]["spec"], container(one)["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsUser"] == 10001
        assert inside == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        assert not any("hostPort" in port for port in container(one)["ports"])
        assert all(
            volume.keys() - {"name"} <= {"configMap", "secret", "emptyDir"}
            for volume in pod.get("volumes", ())
        )
        # Nothing in a pod asks Kubernetes, and OTTLA_… variables are ours.
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False


def test_probes_ask_the_metrics_listener(overlay: Objects) -> None:
    for one in zones(overlay).values():
        node = container(one)
        (metrics,) = [port for port in node["ports"] if port["name"] == "metrics"]
        assert f"--metrics 0.0.0.0:{metrics['containerPort']} " in node["args"][0]
        paths = {name: node[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        assert paths == {
            "startup": {"path": "/healthz", "port": "metrics"},
            "readiness": {"path": "/readyz", "port": "metrics"},
            "liveness": {"path": "/healthz", "port": "metrics"},
        }
        # Recovery after a crash takes long, and a slow node is no hung one.
        assert node["startupProbe"]["periodSeconds"] * node["startupProbe"]["failureThreshold"] >= 1800
        assert node["livenessProbe"]["periodSeconds"] * node["livenessProbe"]["failureThreshold"] >= 60
    # A cluster with offline partitions or without etcd still serves: clients must be able to start.
    assert overlay["Service", "ottla-bootstrap"]["spec"]["publishNotReadyAddresses"] is True


def test_a_pod_waits_for_the_others_before_it_stops_and_has_the_time(
    overlay: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in zones(overlay).values():
        pod, node = one["spec"]["template"]["spec"], container(one)
        program, *arguments = node["lifecycle"]["preStop"]["exec"]["command"]
        waits_s = float(arguments[arguments.index("--timeout") + 1])
        assert program == "ottla" and variables(one, 0)["OTTLA_BOOTSTRAP"] == "127.0.0.1:9094"
        assert pod["terminationGracePeriodSeconds"] >= waits_s + 60
        # All of it is a command line that ottla has: only its time is shortened here.
        arguments[arguments.index("--timeout") + 1] = "0"
        monkeypatch.setenv("OTTLA_BOOTSTRAP", "127.0.0.1:1")
        with pytest.raises(app.CliError, match="cannot reach a broker"):
            app.run(arguments)


# -- who may connect --------------------------------------------------------------------------------------


def selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


Labels = Mapping[str, str]
HERE: Labels = {"kubernetes.io/metadata.name": "prod"}


def of_peers(peers: Any, pod: Labels, namespace: Labels) -> bool:
    for peer in peers:
        inside = (
            selected(peer["namespaceSelector"], namespace)
            if "namespaceSelector" in peer
            else (namespace == HERE)
        )
        if inside and selected(peer.get("podSelector", {}), pod):
            return True
    return False


def allowed(
    objects: Objects, app_name: str, direction: str, pod: Labels, namespace: Labels = HERE
) -> set[int]:
    """The ports by which a pod of an app may be reached by another one (or reach it), by its policy."""
    policy = objects["NetworkPolicy", app_name]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == {"matchLabels": {"app": app_name}}
    peers = {"ingress": "from", "egress": "to"}[direction]
    return {
        port["port"]
        for rule in policy[direction]
        for port in rule["ports"]
        if peers not in rule or of_peers(rule[peers], pod, namespace)
    }


def test_the_network_lets_each_connect_where_it_has_to(overlay: Objects) -> None:
    node, member, client = {"app": "ottla"}, {"app": "etcd"}, {"app": "shop"}
    prometheus: Labels = {"kubernetes.io/metadata.name": "monitoring"}
    system: Labels = {"kubernetes.io/metadata.name": "kube-system"}
    elsewhere: Labels = {"kubernetes.io/metadata.name": "shop"}
    # To nodes.
    assert allowed(overlay, "ottla", "ingress", client) == {9092}
    assert allowed(overlay, "ottla", "ingress", client, elsewhere) == {9092}
    assert allowed(overlay, "ottla", "ingress", {"app": "ottla"}, elsewhere) == {9092}
    assert allowed(overlay, "ottla", "ingress", node) == {9092, 9094}
    assert allowed(overlay, "ottla", "ingress", client, prometheus) == {9092, 9308}
    # From nodes: to each other, to etcd and to names.
    assert allowed(overlay, "ottla", "egress", node) == {9094}
    assert allowed(overlay, "ottla", "egress", member) == {2379}
    assert allowed(overlay, "ottla", "egress", client, system) == {53}
    assert allowed(overlay, "ottla", "egress", client) == set()
    # To and from etcd.
    assert allowed(overlay, "etcd", "ingress", node) == {2379}
    assert allowed(overlay, "etcd", "ingress", member) == {2379, 2380}
    assert allowed(overlay, "etcd", "ingress", client) == set()
    assert allowed(overlay, "etcd", "ingress", client, prometheus) == set()
    assert allowed(overlay, "etcd", "egress", member) == {2379, 2380}
    assert allowed(overlay, "etcd", "egress", client) == set()


# -- secured ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(built: dict[str, Objects]) -> Objects:
    return built["secured"]


def test_kubernetes_is_secured_by_the_overlay(secured: Objects, tmp_path: Path) -> None:
    members = etcd_members(secured)
    check_etcd(members, {name: f"{name}.etcd" for name in members}, "https")
    for one in members.values():
        check_secured_etcd(one, "/etc/etcd-secrets")
    probe = container(secured["StatefulSet", "etcd"])["readinessProbe"]["httpGet"]
    assert probe == {"path": "/health", "port": "client", "scheme": "HTTPS"}
    for zone, one in zones(secured).items():
        host, port = check_secured_node(
            node_arguments(one, 0, tmp_path), [f"{name}.etcd" for name in members]
        )
        assert (host, port) == (f"ottla-{zone}-0.ottla.prod.svc", 9092)
        assert variables(one, 0)["OTTLA_CLIENT_PROPERTIES"] == "/etc/ottla/client.properties"


def mounted_secrets(secured: Objects) -> Iterator[tuple[str, Any, str]]:
    """Each set with a mount of a secret, and the secret's name."""
    for (kind, name), one in secured.items():
        if kind == "StatefulSet":
            volumes = {each["name"]: each for each in one["spec"]["template"]["spec"]["volumes"]}
            for mount in container(one)["volumeMounts"]:
                if "secret" in volumes.get(mount["name"], {}):
                    yield name, mount, volumes[mount["name"]]["secret"]["secretName"]


def test_secrets_that_pods_are_told_of_are_mounted(secured: Objects) -> None:
    data = secured["ConfigMap", "ottla"]["data"]
    assert data.keys() == {"server.properties", "client.properties"}
    for name, mount, secret in mounted_secrets(secured):
        text = json.dumps(secured["StatefulSet", name]["spec"])
        if name != "etcd":
            text += "".join(data.values())
        wanted = set(re.findall(rf"{mount['mountPath']}/([\w.-]+)", text))
        assert wanted == secured["Secret", secret]["data"].keys()
    assert len(list(mounted_secrets(secured))) == 4


# -- restarting node by node ------------------------------------------------------------------------------


def test_nodes_are_restarted_one_by_one_only(overlay: Objects) -> None:
    for one in zones(overlay).values():
        assert one["spec"]["updateStrategy"] == {"type": "OnDelete"}
        # What roll.sh selects, and none of etcd.
        assert one["spec"]["template"]["metadata"]["labels"]["app"] == "ottla"
    script = DEPLOY / "kubernetes" / "roll.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)


KUBECTL = """case "$*" in
*"get pods"*) printf 'pod/ottla-a-0\\npod/ottla-b-0\\npod/ottla-c-0\\n';;
*%s*) exit 1;;
esac"""


def rolled(stubs: Path, failing: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What roll.sh does where a call of kubectl fails each time."""
    stub(stubs, "kubectl", KUBECTL % failing)
    return run_with(stubs, "sh", str(DEPLOY / "kubernetes" / "roll.sh"), "prod")


def test_roll_restarts_pods_one_by_one_and_waits_behind_each(stubs: Path) -> None:
    done, calls = rolled(stubs, "nothing-that-fails")
    assert (done.returncode, done.stderr) == (0, "")
    each = [
        "kubectl --namespace prod delete pod/ottla-{}-0",
        "kubectl --namespace prod get pod/ottla-{}-0",
        "kubectl --namespace prod wait --for condition=Ready --timeout 600s pod/ottla-{}-0",
        "kubectl --namespace prod exec pod/ottla-{}-0 -- ottla cluster wait --nodes 3 --timeout 600",
    ]
    assert calls[1:] == [line.format(zone) for zone in ZONES for line in each]


@pytest.mark.parametrize("failing", ['"get pod/"', '" wait --for"', '"cluster wait"', '"delete"'])
def test_roll_stops_at_the_first_pod_that_is_not_well(stubs: Path, failing: str) -> None:
    done, calls = rolled(stubs, failing)
    assert done.returncode != 0
    assert not [call for call in calls if "ottla-b" in call]
