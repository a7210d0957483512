"""docs/SECURITY.md as somebody follows it: its settings start a broker, its commands come in."""

from __future__ import annotations

import re
from pathlib import Path

from cli_support import Ottla
from login_support import served

from ottla.config import parse_properties
from ottla.security.authority import Authority

PAGE = Path(__file__).parent.parent.parent / "docs" / "SECURITY.md"


def blocks() -> list[str]:
    return re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_is_followed(tmp_path: Path) -> None:
    settings, commands, client = blocks()[:3]
    authority = Authority("test")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "broker.pem").write_bytes(authority.issue("broker", ("localhost", "127.0.0.1")))
    here = settings.replace("/etc/ottla", str(tmp_path)).replace("0.0.0.0:9093", "127.0.0.1:0")
    here = here.replace("advertised.listeners=SASL_SSL://broker.example.org:9093\n", "")
    (tmp_path / "admin.properties").write_text(client.replace("/etc/ottla", str(tmp_path)))
    (tmp_path / "password").write_text("a password\n")
    with served(tmp_path, parse_properties(here)) as node:
        ottla = Ottla("{}:{}".format(*node.address))
        ottla.environment["OTTLA_CLIENT_PROPERTIES"] = str(tmp_path / "admin.properties")
        for line in commands.splitlines():
            if line.startswith("ottla "):
                # Where a terminal would ask.
                asked = ["--password-file", str(tmp_path / "password")] if "user create" in line else []
                ran = ottla.try_(*line.split()[1:], *asked)
                assert ran.code == 0, (line, ran)
