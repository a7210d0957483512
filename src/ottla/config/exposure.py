"""Which listeners let in whoever reaches them: beyond this machine, and nobody has to say who he is."""

from __future__ import annotations

from ottla.config.values import BrokerConfig


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host. An empty one is every address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def exposed(config: BrokerConfig) -> list[str]:
    """Listeners that others reach, with addresses, at which nobody logs in or shows a certificate."""
    found = []
    for endpoint in config.listeners():
        if is_loopback(endpoint.host) or endpoint.protocol.startswith("SASL_"):
            continue
        settings = config.for_listener(endpoint.listener)
        if endpoint.protocol == "SSL" and settings.get("ssl.client.auth") == "required":
            continue
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        found.append(f"{endpoint.listener}://{host}:{endpoint.port}")
    return found
