"""What subscriptions know clients by."""

from __future__ import annotations

from ottla.broker.request import Client


def attributes_of(client: Client, client_id: str) -> dict[str, str | None]:
    """A client's attributes, by the names that subscriptions match (``ClientMetricsInstanceMetadata``), its
    id aside."""
    name, version = client.software or (None, None)
    return {
        "client_id": client_id,
        "client_software_name": name,
        "client_software_version": version,
        "client_source_address": client.host,
        "client_source_port": str(client.port) if client.port else None,
    }
