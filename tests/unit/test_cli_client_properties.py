"""What commands make of client properties: librdkafka's, and those of Kafka's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError

KAFKAS = """
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\
    username="alice" password="won;der";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/ca.pem
ssl.keystore.type=PEM
ssl.keystore.location=/etc/alice.pem
ssl.endpoint.identification.algorithm=
"""


def test_properties_of_kafkas_tools(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(KAFKAS)
    assert client_properties([f"@{file}", "client.id=x"]) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "alice",
        "sasl.password": "won;der",
        "ssl.ca.location": "/etc/ca.pem",
        "ssl.certificate.location": "/etc/alice.pem",
        "ssl.key.location": "/etc/alice.pem",
        "ssl.endpoint.identification.algorithm": "none",
        "client.id": "x",
    }


@pytest.mark.parametrize(
    ("pairs", "refusal"),
    [
        (["client.id"], "give NAME=VALUE"),
        (["@/nowhere/at all"], "no such file"),
        (["ssl.truststore.type=JKS"], "only PEM is read here"),
        (["sasl.jaas.config=tell required;"], "it has no username"),
        (["sasl.jaas.config=x required tell"], "sasl.jaas.config"),
    ],
)
def test_what_cannot_be_is_said(pairs: list[str], refusal: str) -> None:
    with pytest.raises(CliError, match=refusal) as refused:
        client_properties(pairs)
    assert "tell" not in str(refused.value)
