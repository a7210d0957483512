"""The control port: what `Broker` offers to tests in Python, by HTTP and JSON, for tests in any language.

`server` is the port, `guard` says who may use it, `endpoints` what it offers. docs/CONTROL.md is for users.
"""
