"""What secures the deployments: each file fits the one that it is put upon, and all of them the one
configuration that nodes have in common. `tests/security/test_deployed.py` runs that."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml
from test_deploy import (
    DEPLOY,
    SECRETS,
    SECURED,
    Unit,
    check_etcd,
    check_secured_etcd,
    check_secured_node,
    environment,
    of_environment,
)

from ottla.metadata.stores import parse_store


def test_there_is_no_secret_in_what_all_nodes_have() -> None:
    text = (SECURED / "server.properties").read_text()
    assert not re.search(r"^[^#]*(password|jaas)", text, re.MULTILINE)


# -- systemd ----------------------------------------------------------------------------------------------


def test_the_drop_in_secures_the_unit() -> None:
    # An option that is there twice: the first of them empties the unit's.
    text = (SECURED / "ottla.conf").read_text()
    emptied, command = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert emptied == ""
    values = environment(DEPLOY / "systemd" / "ottla.env") | environment(SECURED / "secured.env")
    # What has no braces may be several words, or none.
    filled = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], command.replace("%i", "7"))
    program, serve, *arguments = shlex.split(filled)
    unit = Unit(DEPLOY / "systemd" / "ottla@.service")["Service"]["ExecStart"]
    assert [program, serve] == unit.split()[:2]
    store = environment(DEPLOY / "systemd" / "ottla.env")["OTTLA_STORE"]
    members = [one.rsplit(":", 1)[0] for one in parse_store(store, "c").endpoints]
    assert check_secured_node(arguments, members) == (values["OTTLA_HOST"], 9092)
    assert values["OTTLA_ADVERTISE"] == f"{values['OTTLA_HOST']}:9092"


def test_the_drop_in_secures_etcd() -> None:
    names = ("systemd/etcd-ottla.conf", "secured/etcd-secured.conf")
    # systemd reads them in this order.
    assert [Path(name).name for name in names] == sorted(Path(name).name for name in names)
    options = {}
    for name in names:
        text = (DEPLOY / name).read_text()
        options |= of_environment(dict(re.findall(r"^Environment=(ETCD_\w+?)=(.*)$", text, re.MULTILINE)))
    check_secured_etcd(options, "/etc/etcd-secrets")
    hosts = dict(pair.split("=", 1) for pair in options["initial-cluster"].split(","))
    assert options["initial-advertise-peer-urls"] == options["listen-peer-urls"] == hosts["etcd-1"]


# -- compose ----------------------------------------------------------------------------------------------


def compose() -> Any:
    """Both files, as Compose takes them: mappings are merged, volumes added, commands replaced."""
    base, over = (
        yaml.safe_load(path.read_text()) for path in (DEPLOY / "compose.yaml", SECURED / "compose.yaml")
    )
    assert over["services"].keys() == base["services"].keys()
    for name, service in over["services"].items():
        mine = base["services"][name]
        assert service.keys() <= {"environment", "env_file", "volumes", "command"}
        mine["environment"] = mine.get("environment", {}) | service.get("environment", {})
        mine["env_file"] = service.get("env_file", [])
        mine["volumes"] = [*mine["volumes"], *service["volumes"]]
        mine["command"] = service.get("command", mine.get("command"))
    return base


def test_compose_is_secured_by_the_second_file() -> None:
    services = compose()["services"]
    members = {name: one for name, one in services.items() if name.startswith("etcd-")}
    options = {name: of_environment(one["environment"]) for name, one in members.items()}
    check_etcd(options, {name: name for name in members}, "https")
    for one in options.values():
        check_secured_etcd(one, SECRETS)
    # etcd's health is asked for as somebody whom it knows.
    for one in members.values():
        assert one["env_file"] == ["./secured/secrets/etcdctl.env"]
        assert one["environment"]["ETCDCTL_ENDPOINTS"].startswith("https://localhost:")
    for name in services.keys() - members.keys():
        command, *arguments = services[name]["command"]
        assert command == "serve"
        host, port = check_secured_node(arguments, list(members))
        assert (host, services[name]["ports"]) == ("localhost", [f"127.0.0.1:{port}:{port}"])
        for volume in services[name]["volumes"][1:]:
            source, target, mode = volume.split(":")
            assert mode == "ro"
            assert target == SECRETS or (DEPLOY / source).read_text()


# -- the scripts ------------------------------------------------------------------------------------------


def test_every_script_is_one() -> None:
    for path in SECURED.glob("*.sh"):
        assert path.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", path], check=True)
