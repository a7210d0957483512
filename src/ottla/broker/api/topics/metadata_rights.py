"""Which topics a client may be told of in Metadata responses, and which it may have made by asking."""

from __future__ import annotations

from uuid import UUID

from ottla.broker.request import RequestContext
from ottla.broker.views.cluster import OPERATIONS_OMITTED
from ottla.broker.views.topics import EncodedTopics
from ottla.errors import ErrorCode
from ottla.metadata.image import TopicImage
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType


class MetadataRights:
    """Of a client that may not do everything, for one request (``KafkaApis.handleTopicMetadataRequest``).

    A topic without DESCRIBE is refused where it is named, with the name whether there is such a topic or not,
    or with the id without the name; where all are asked for, it is left out. One that is missing and would be
    made needs CREATE, on the cluster or by its name.
    """

    __slots__ = ("_creates", "_ctx", "_is_all", "_tells_operations", "hides")

    def __init__(self, ctx: RequestContext, *, is_all: bool, creates: bool, tells_operations: bool) -> None:
        """``creates``: topics that are missing are made. ``tells_operations``: the answer is to tell what the
        client may do with each."""
        self._ctx = ctx
        self._is_all = is_all
        self._creates = creates
        self._tells_operations = tells_operations
        # Whether anything has been left out.
        self.hides = False

    def refusal(self, topics: EncodedTopics, asked: str | UUID, topic: TopicImage | None) -> bytes | None:
        """What is told in place of a topic, nothing where it is left out; None: it may be told of."""
        if isinstance(asked, str):
            if not self._may_describe(asked):
                self.hides = True
                return b"" if self._is_all else topics.denied(asked)
            if topic is None and self._creates and not self._may_create(asked):
                return topics.missing(asked, None, ErrorCode.topic_authorization_failed)
        elif topic is not None and not self._may_describe(topic.name):
            return topics.denied(None, asked)
        return None

    def may_make(self, name: str) -> bool:
        """Whether a topic that is missing may be made for the client."""
        return self._may_describe(name) and self._may_create(name)

    def _may_describe(self, name: str) -> bool:
        return self._ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, name, quietly=self._is_all)

    def _may_create(self, name: str) -> bool:
        ctx = self._ctx
        return ctx.may(Operation.CREATE, ResourceType.CLUSTER, CLUSTER_NAME, quietly=True) or ctx.may(
            Operation.CREATE, ResourceType.TOPIC, name
        )

    def operations(self, name: str) -> int:
        """What is told of what the client may do with a topic."""
        if not self._tells_operations:
            return OPERATIONS_OMITTED
        return self._ctx.operations(ResourceType.TOPIC, name)
