"""ACLs as Kafka has them (KIP-11, KIP-290): what one says, which are asked for, and which can be.

``AclBinding`` is Kafka's ``StandardAcl``, ``AclFilter`` its ``AclBindingFilter``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, NamedTuple, Self

# Stands for every name of its kind: a resource's, a principal's (behind ``User:``), or a host.
WILDCARD = "*"
EVERYBODY = "User:*"
# The one resource of the type CLUSTER.
CLUSTER_NAME = "kafka-cluster"

# Characters that an ACL may have in its names together: it is kept in the memory of every node.
CHARACTERS_MAX = 4_096


class _Code(IntEnum):
    """What a number in a request stands for; 0, UNKNOWN, for whatever there is not."""

    @classmethod
    def of(cls, code: int) -> Self:
        """What a number stands for."""
        try:
            return cls(code)
        except ValueError:
            return cls(0)


class ResourceType(_Code):
    """What ACLs are about (``org.apache.kafka.common.resource.ResourceType``)."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class PatternType(_Code):
    """How an ACL names resources (``PatternType``); ANY and MATCH are of filters only."""

    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class Operation(_Code):
    """What is done to a resource (``AclOperation``)."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class Permission(_Code):
    """Whether an ACL allows or denies (``AclPermissionType``)."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3


# What can be done to a resource of each type (``AclEntry.supportedOperations``).
SUPPORTED: dict[ResourceType, tuple[Operation, ...]] = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DESCRIBE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (
        Operation.READ,
        Operation.DESCRIBE,
        Operation.DELETE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
        Operation.ALTER,
        Operation.DESCRIBE,
    ),
    ResourceType.TRANSACTIONAL_ID: (Operation.DESCRIBE, Operation.WRITE, Operation.TWO_PHASE_COMMIT),
    ResourceType.DELEGATION_TOKEN: (Operation.DESCRIBE,),
    ResourceType.USER: (Operation.CREATE_TOKENS, Operation.DESCRIBE_TOKENS),
}


class AclBinding(NamedTuple):
    """One ACL: whether ``principal`` may do ``operation`` from ``host`` to what the pattern names."""

    resource_type: ResourceType
    resource_name: str
    pattern_type: PatternType
    principal: str
    host: str
    operation: Operation
    permission: Permission

    @classmethod
    def of(cls, resource_type: int, resource_name: str, pattern_type: int, entry: Any) -> Self:
        """What requests and answers have of one: its pattern, and an entry that has the rest as
        ``principal``, ``host``, ``operation`` and ``permission_type``."""
        return cls(
            ResourceType.of(resource_type),
            resource_name,
            PatternType.of(pattern_type),
            entry.principal,
            entry.host,
            Operation.of(entry.operation),
            Permission.of(entry.permission_type),
        )

    def __str__(self) -> str:
        return (
            f"{self.permission.name} {self.principal} {self.operation.name} from {self.host} on "
            f"{self.resource_type.name}:{self.pattern_type.name}:{self.resource_name}"
        )


class AclFilter(NamedTuple):
    """Which ACLs are asked for; None stands for any name, principal or host.

    A pattern type of MATCH asks for the ACLs that have to do with the resource of that name, by whichever
    pattern; ANY for those of that very name, as literal or prefix.
    """

    resource_type: ResourceType = ResourceType.ANY
    resource_name: str | None = None
    pattern_type: PatternType = PatternType.ANY
    principal: str | None = None
    host: str | None = None
    operation: Operation = Operation.ANY
    permission: Permission = Permission.ANY

    def is_unknown(self) -> bool:
        """Whether it has something that this release does not know."""
        return (
            self.resource_type is ResourceType.UNKNOWN
            or self.pattern_type is PatternType.UNKNOWN
            or self.operation is Operation.UNKNOWN
            or self.permission is Permission.UNKNOWN
        )

    def matches(self, acl: AclBinding) -> bool:
        if self.resource_type not in (ResourceType.ANY, acl.resource_type):
            return False
        if not self._matches_pattern(acl):
            return False
        if self.principal is not None and self.principal != acl.principal:
            return False
        if self.host is not None and self.host != acl.host:
            return False
        if self.operation not in (Operation.ANY, acl.operation):
            return False
        return self.permission in (Permission.ANY, acl.permission)

    def _matches_pattern(self, acl: AclBinding) -> bool:
        if self.pattern_type not in (PatternType.ANY, PatternType.MATCH, acl.pattern_type):
            return False
        name = self.resource_name
        if name is None or name == acl.resource_name:
            return True
        if self.pattern_type is not PatternType.MATCH:
            return False
        if acl.pattern_type is PatternType.LITERAL:
            return acl.resource_name == WILDCARD
        return name.startswith(acl.resource_name)


def invalid(acl: AclBinding) -> str | None:
    """Why there can be no such ACL (``AclApis``, ``AclControlManager.validateNewAcl``); None: there can.

    Kafka lets names be of any length.
    """
    if acl.resource_type is ResourceType.CLUSTER and acl.resource_name != CLUSTER_NAME:
        return f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}"
    if not acl.resource_name:
        return "Invalid empty resource name"
    if acl.resource_type in (ResourceType.UNKNOWN, ResourceType.ANY):
        return f"Invalid resourceType {acl.resource_type.name}"
    if acl.pattern_type not in (PatternType.LITERAL, PatternType.PREFIXED):
        return f"Invalid patternType {acl.pattern_type.name}"
    if acl.operation in (Operation.UNKNOWN, Operation.ANY):
        return f"Invalid operation {acl.operation.name}"
    if acl.permission not in (Permission.DENY, Permission.ALLOW):
        return f"Invalid permissionType {acl.permission.name}"
    if ":" not in acl.principal:
        return (
            f"Could not parse principal from `{acl.principal}` (no colon is present separating the "
            "principal type from the principal name)"
        )
    if len(acl.resource_name) + len(acl.principal) + len(acl.host) > CHARACTERS_MAX:
        return f"An ACL's names may have {CHARACTERS_MAX} characters together"
    return _invalid_host(acl.host)


def _invalid_host(host: str) -> str | None:
    if not host:
        return "Host pattern cannot be null or empty"
    if "/" in host and _network(host) is None:
        return f"Invalid CIDR notation '{host}'"
    return None


def canonical_host(host: str) -> str:
    """An address as ACLs see it: one text for each, IPv4 where it is mapped into IPv6, and without a zone.

    What is no address stays as it is.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except AddressValueError:
        return host
    mapped = address.ipv4_mapped
    return str(address if mapped is None else mapped)


def address_of(text: str) -> str | None:
    """The address that a text stands for, as ``canonical_host`` has it; None where it is none.

    As Java's ``InetAddress.getByName`` reads what is no name: IPv6 may be in brackets, and of IPv4 the last
    number may stand for several bytes, as in 10.1.
    """
    if text.startswith("[") and text.endswith("]") and ":" in text:
        text = text[1:-1]
    if ":" in text:
        return None if address_number(text.partition("%")[0], 6) is None else canonical_host(text)
    *firsts, last = text.split(".")
    rest = 256 ** (4 - len(firsts))
    if len(firsts) > 3 or len(text) > 15 or not all(map(_is_decimal, (*firsts, last))):
        return None
    if any(int(part) > 255 for part in firsts) or int(last) >= rest:
        return None
    return str(IPv4Address(sum(int(part) << (24 - 8 * at) for at, part in enumerate(firsts)) + int(last)))


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdecimal()


# As many as there may be ACLs with different hosts before they are parsed again.
@lru_cache(maxsize=10_000)
def host_of(pattern: str) -> str | Network:
    """What to compare clients' hosts with for an ACL's host: the wildcard, a text, or a network."""
    if "/" in pattern:
        network = _network(pattern)
        # One that is not a network matches nobody, as its own text is no host.
        return pattern if network is None else network
    return canonical_host(pattern)


class Network(NamedTuple):
    """Addresses that begin with the same bits (Kafka's ``CidrUtils``)."""

    version: int
    first: int
    last: int

    def holds(self, host: str) -> bool:
        number = address_number(host, self.version)
        # As in commons-net, which Kafka asks, 0.0.0.0 is in no network.
        return (
            number is not None
            and self.first <= number <= self.last
            and not (number == 0 and self.version == 4)
        )


def _network(pattern: str) -> Network | None:
    text, _, digits = pattern.partition("/")
    version = 6 if ":" in text else 4
    bits = 128 if version == 6 else 32
    number = address_number(text, version)
    if number is None or not (digits.isascii() and digits.isdecimal()) or len(digits) > 3:
        return None
    if int(digits) > bits or (version == 6 and IPv6Address(number).ipv4_mapped is not None):
        # commons-net reads the latter as IPv4, which then is of no IPv6 network.
        return None
    span = 1 << (bits - int(digits))
    first = number // span * span
    return Network(version, first, first + span - 1)


@lru_cache(maxsize=1_000)
def address_number(text: str, version: int) -> int | None:
    """An address as a number; None where the text is none of that version of IP."""
    try:
        if version == 6:
            return int(IPv6Address(text)) if ":" in text else None
        parts = text.split(".")
        if all(part.isascii() and part.isdecimal() and len(part) <= 3 for part in parts):
            # Java reads leading zeros as decimal.
            text = ".".join(str(int(part)) for part in parts)
        return int(IPv4Address(text))
    except AddressValueError:
        return None


def matching(acls: Iterable[AclBinding], wanted: AclFilter) -> Iterator[AclBinding]:
    """Those of the ACLs that are asked for."""
    return filter(wanted.matches, acls)
