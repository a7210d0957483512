"""Faults of a simulated cluster, drawn from a seed: of processes, machines, network, store, disks, clocks."""
