"""Fetch: handler; session, what a client wants; reader, a look at it; waiting, until there is enough."""

from ottla.broker.api.records.fetch.handler import handle as handle
