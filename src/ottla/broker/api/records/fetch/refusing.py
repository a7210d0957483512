"""A Fetch that is not answered with anything but why."""

from __future__ import annotations

from ottla.broker.api.records.fetch.reader import Limits, Reader
from ottla.broker.api.records.fetch.session import Want
from ottla.broker.request import RequestContext
from ottla.errors import KafkaError
from ottla.replication.partition import Partition


class Refusing(Reader):
    """A request that came by a way that is not for whom it names: no session is begun, gone on with or ended
    for it, and each of its partitions is refused."""

    __slots__ = ("_error",)

    def __init__(self, ctx: RequestContext, wants: list[Want], limits: Limits, error: KafkaError) -> None:
        super().__init__(ctx, None, wants, limits)
        self._error = error
        # Whatever a consumer could read.
        self._is_limited = False

    def find(self, want: Want) -> Partition:
        raise self._error
