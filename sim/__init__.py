"""A whole cluster in one process under virtual time: nodes, store, clients, faults, and what must hold.

The product's own code runs here, unchanged; only its clock, disk, network and metadata store are not real.
`python -m sim --seed N` runs one seed. See docs/FAULTS.md for what is injected and what must be survived.
"""
