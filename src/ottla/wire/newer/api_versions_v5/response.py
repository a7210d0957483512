"""ApiVersionsResponse v5: as v4; REBOOTSTRAP_REQUIRED is possible."""

from dataclasses import dataclass
from typing import ClassVar

from kio.schema.api_versions.v4 import response as v4
from kio.static.primitive import i16


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersionsResponse(v4.ApiVersionsResponse):
    """As version 4."""

    __version__: ClassVar[i16] = i16(5)
