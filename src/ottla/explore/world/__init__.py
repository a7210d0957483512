"""Machines under virtual time: loop, disks and network, the metadata store, and nodes that run on them."""
