"""The ACLs of one principal about one pattern, as they are looked at: few are gone through, of many those are
looked up that are for a client's host."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, final

from ottla.security.acl_bindings import (
    WILDCARD,
    AclBinding,
    Network,
    Operation,
    Permission,
    address_number,
    host_of,
)

# So many are gone through, one by one: a tenth of a microsecond each.
FEW_MAX: Final = 32


class Decision(NamedTuple):
    """Whether something is allowed, and by which rule: an ACL, or one of those that Kafka's audit log calls
    SuperUser, DefaultAllow and DefaultDeny."""

    allowed: bool
    rule: AclBinding | str


@final
class Rule:
    """An ACL as it is looked at."""

    __slots__ = ("acl", "decision", "host", "operation")

    def __init__(self, acl: AclBinding) -> None:
        self.acl = acl
        self.host = host_of(acl.host)
        self.operation = acl.operation
        self.decision = Decision(acl.permission is Permission.ALLOW, acl)

    @property
    def order(self) -> tuple[int, str, str, int]:
        """Its place among those of one pattern: as ``StandardAcl.compareTo``."""
        acl = self.acl
        return acl.operation, acl.principal, acl.host, acl.permission

    def is_for(self, host: str) -> bool:
        mine = self.host
        return mine in (WILDCARD, host) or (isinstance(mine, Network) and mine.holds(host))

    def applies(self, operation: Operation, allowed_by: frozenset[Operation] | None) -> bool:
        mine = self.operation
        if mine is operation or mine is Operation.ALL:
            return True
        return allowed_by is not None and self.decision.allowed and mine in allowed_by


# Where rules stand that have the same host: a text, or a network as its version of IP, how many bits its
# addresses differ in, and the others as a number.
_Place = str | tuple[int, int, int]
# Of an operation and a permission, which one number stands for: rules in the order of their hosts' texts.
_Kinds = dict[int, list[Rule]]


def _place(host: str | Network) -> _Place:
    if isinstance(host, str):
        return host
    bits = (host.last - host.first).bit_length()
    return host.version, bits, host.first >> bits


def _kind(operation: Operation, permission: Permission) -> int:
    return operation << 2 | permission


def _text(rule: Rule) -> str:
    return rule.acl.host


@final
class ManyRules:
    """Rules by their hosts. However many there are, a client's are found by as many looks as there are sizes
    of networks among them: 33 of IPv4 at most, 129 of IPv6."""

    __slots__ = ("_count", "_places", "_sizes")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._count = 0
        self._places: dict[_Place, _Kinds] = {}
        # How many rules there are for networks of each size, by version and bits.
        self._sizes: dict[tuple[int, int], int] = {}
        for rule in rules:
            self.append(rule)

    def __len__(self) -> int:
        return self._count

    def append(self, rule: Rule) -> None:
        place = _place(rule.host)
        kinds = self._places.setdefault(place, {})
        insort(kinds.setdefault(_kind(rule.operation, rule.acl.permission), []), rule, key=_text)
        if isinstance(place, tuple):
            self._sizes[place[:2]] = self._sizes.get(place[:2], 0) + 1
        self._count += 1

    def remove(self, rule: Rule) -> None:
        """Have one of them no more."""
        place, kind = _place(rule.host), _kind(rule.operation, rule.acl.permission)
        kinds = self._places[place]
        rules = kinds[kind]
        del rules[bisect_left(rules, _text(rule), key=_text)]
        if not rules:
            del kinds[kind]
        if not kinds:
            del self._places[place]
        if isinstance(place, tuple):
            self._sizes[place[:2]] -= 1
            if not self._sizes[place[:2]]:
                del self._sizes[place[:2]]
        self._count -= 1

    def deciding(
        self, host: str, operation: Operation, allowed_by: frozenset[Operation] | None
    ) -> Iterator[Rule]:
        """Those among which the first that denies, and the last that allows, are those of all rules."""
        for place in self._places_of(host):
            kinds = self._places.get(place)
            if kinds is None:
                continue
            for mine in (operation, Operation.ALL):
                rules = kinds.get(_kind(mine, Permission.DENY))
                if rules is not None:
                    yield rules[0]
            for mine in (operation, Operation.ALL) if allowed_by is None else allowed_by:
                rules = kinds.get(_kind(mine, Permission.ALLOW))
                if rules is not None:
                    yield rules[-1]

    def _places_of(self, host: str) -> Iterator[_Place]:
        """Where rules may stand that are for a client's host."""
        yield WILDCARD
        yield host
        version = 6 if ":" in host else 4
        number = address_number(host, version) if self._sizes else None
        if number is not None:
            for size in self._sizes:
                if size[0] == version:
                    yield *size, number >> size[1]
