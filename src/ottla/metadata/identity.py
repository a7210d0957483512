"""Whose a data directory is, next to what the store says: what a node must not begin with."""

from __future__ import annotations

from collections.abc import Mapping

from ottla.config.node import StartError
from ottla.metadata.image import ClusterImage


def check_alone(others: Mapping[int, int], node_id: int, path: str) -> None:
    """StartError where the data directory has partitions of other nodes, which would not be served."""
    if others:
        nodes = ", ".join(map(str, others))
        raise StartError(
            f"the data directory {path} has partitions of other nodes ({nodes}), which this one alone would "
            f"not serve: start it with --processes {max(others) - node_id + 1}, as before; to have one "
            "process, empty the others first, one after the other, with 'ottla cluster drain N' ('ottla log "
            "stray' for what was set aside)"
        )


def check_unknown(image: ClusterImage, node_id: int, path: str) -> None:
    """StartError where the cluster knows the node, and the data directory, ``path``, is nobody's yet.

    Somebody else who is given a node's id would take its place in the cluster while that node is away, with
    nothing of what it has acknowledged, and keep it out from then on.
    """
    if node_id in image.nodes or node_id in image.brokers:
        raise StartError(
            f"the cluster knows node {node_id}, and the data directory {path} is empty: give that node's own "
            "data directory, or this one another --node-id; only if the node's data is gone for good, start "
            "it with --replace, and it copies what it had from the others"
        )
