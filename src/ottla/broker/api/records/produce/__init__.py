"""Produce: handler; ordering, behind a refused batch; commit, waiting for the disk and for replicas."""

from ottla.broker.api.records.produce.handler import handle as handle
