"""DeleteGroupsRequest v3: as v2."""

from dataclasses import dataclass
from typing import ClassVar

from kio.schema.delete_groups.v2 import request as v2
from kio.static.primitive import i16


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteGroupsRequest(v2.DeleteGroupsRequest):
    """As version 2."""

    __version__: ClassVar[i16] = i16(3)
