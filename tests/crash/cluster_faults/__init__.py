"""A cluster under load while everything around it fails, and the check of what its clients saw.

``machines`` are the nodes and etcd's members, ``worker`` the clients, ``faults`` what is done to them,
``history`` what was seen, ``checker`` what must hold of it, ``campaign`` puts them together.
"""
