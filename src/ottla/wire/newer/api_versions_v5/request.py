"""ApiVersionsRequest v5."""

from dataclasses import dataclass, field
from typing import ClassVar

from kio.schema.api_versions.v4 import request as v4
from kio.schema.types import BrokerId
from kio.static.primitive import i16


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersionsRequest(v4.ApiVersionsRequest):
    """Adds which cluster and node the client means, both or neither of them."""

    __version__: ClassVar[i16] = i16(5)
    cluster_id: str | None = field(metadata={"kafka_type": "string"}, default=None)
    node_id: BrokerId = field(metadata={"kafka_type": "int32"}, default=BrokerId(-1))
