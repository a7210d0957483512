"""One module for each subject: its metrics, as data, and how they are collected from a node's parts.

``collect`` is a generator that yields wherever it may pause. Between two pieces anything may have changed,
so what is gone through is a copy.
"""
