"""Who may do what: Kafka's ``StandardAuthorizer``, as a pure index of ACLs and decisions that are remembered.

A decision asks, in this order:

1. Is the principal one of ``super.users``? It is allowed, whatever ACLs say.
2. Does an ACL deny it, of those whose pattern fits the resource (its literal name, a prefix of it, or ``*``),
   whose principal is this one or ``User:*``, and whose host fits? It is denied. A DENY is for its own
   operation only, or for all of them.
3. Does one of them allow it? It is allowed. READ, WRITE, DELETE and ALTER allow DESCRIBE as well,
   ALTER_CONFIGS allows DESCRIBE_CONFIGS.
4. Is there any ACL whose pattern fits, be it somebody else's? It is denied.
5. Otherwise ``allow.everyone.if.no.acl.found`` decides.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Protocol, final
from weakref import WeakSet

from ottla.security.acl_bindings import (
    EVERYBODY,
    SUPPORTED,
    WILDCARD,
    AclBinding,
    Operation,
    PatternType,
    ResourceType,
    canonical_host,
)
from ottla.security.acl_rules import FEW_MAX, Decision, ManyRules, Rule

# Decisions that are remembered: for one client, and for all of them together. One takes some 300 bytes.
CACHED_MAX = 10_000
CACHED_IN_ALL_MAX = 100_000
# Decisions about longer names are made anew each time.
CACHED_NAME_MAX = 256

# What an ACL that allows one operation allows besides (``StandardAuthorizerData.IMPLIES_DESCRIBE``).
_ALLOWED_BY: Final[dict[Operation, frozenset[Operation]]] = {
    Operation.DESCRIBE: frozenset(
        (
            Operation.ALL,
            Operation.DESCRIBE,
            Operation.READ,
            Operation.WRITE,
            Operation.DELETE,
            Operation.ALTER,
        )
    ),
    Operation.DESCRIBE_CONFIGS: frozenset(
        (Operation.ALL, Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS)
    ),
}


SUPER_USER = Decision(True, "SuperUser")
DEFAULT_ALLOW = Decision(True, "DefaultAllow")
DEFAULT_DENY = Decision(False, "DefaultDeny")


def super_users(text: str | None) -> frozenset[str]:
    """The principals of ``super.users``, which semicolons separate. ValueError for one without a type."""
    users = frozenset(each.strip() for each in (text or "").split(";") if each.strip())
    for user in users:
        if ":" not in user:
            raise ValueError(
                f"expected a string in format principalType:principalName but got {user}: say User:{user}"
            )
    return users


# The rules of one pattern, by principal.
_Node = dict[str, list[Rule] | ManyRules]


@final
class _Prefixes:
    """Names in their order, of which those that another name begins with are found quickly."""

    __slots__ = ("_names", "_shorter")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sorted(names)
        # For those that were come across: the longest other one that it begins with.
        self._shorter: dict[str, str | None] = {}

    def add(self, name: str) -> None:
        insort(self._names, name)
        self._shorter.clear()

    def discard(self, name: str) -> None:
        at = bisect_left(self._names, name)
        if at < len(self._names) and self._names[at] == name:
            del self._names[at]
            self._shorter.clear()

    def of(self, name: str) -> Iterator[str]:
        """Those that ``name`` begins with, the longest first.

        The last one in order that is not behind ``name`` begins with all of them.
        """
        at = bisect_right(self._names, name)
        found = self._names[at - 1] if at else None
        while found is not None and not name.startswith(found):
            found = self._next(found)
        while found is not None:
            yield found
            found = self._next(found)

    def _next(self, name: str) -> str | None:
        if name not in self._shorter:
            self._shorter[name] = self._find(name)
        return self._shorter[name]

    def _find(self, name: str) -> str | None:
        names = self._names
        bound, end = name, bisect_left(names, name)
        while end > 0:
            found = names[end - 1]
            if name.startswith(found):
                return found
            # What is looked for is not longer than what these two begin with alike.
            bound = name[: _common(bound, found)]
            end = bisect_right(names, bound, 0, end - 1)
        return None


def _common(name: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(name), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if name.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


@final
class Acls:
    """ACLs, found by what they are about. Adding or removing one costs some microseconds."""

    __slots__ = ("_literal", "_prefixed", "_prefixes", "_rules_of")

    def __init__(self, acls: Iterable[AclBinding] = ()) -> None:
        self._literal: dict[tuple[ResourceType, str], _Node] = {}
        self._prefixed: dict[tuple[ResourceType, str], _Node] = {}
        self._prefixes: dict[ResourceType, _Prefixes] = {}
        # By principal and type, where it is asked whether one of them allows anything.
        self._rules_of: dict[tuple[str, ResourceType], dict[AclBinding, Rule]] = {}
        for acl in acls:
            self.add(acl)

    def __len__(self) -> int:
        return sum(map(len, self._rules_of.values()))

    def add(self, acl: AclBinding) -> None:
        """Have another ACL; one that is there already changes nothing."""
        mine = self._rules_of.setdefault((acl.principal, acl.resource_type), {})
        if acl in mine:
            return
        rule = mine[acl] = Rule(acl)
        prefixed = acl.pattern_type is PatternType.PREFIXED
        nodes = self._prefixed if prefixed else self._literal
        key = (acl.resource_type, acl.resource_name)
        if prefixed and key not in nodes:
            self._prefixes.setdefault(acl.resource_type, _Prefixes()).add(acl.resource_name)
        node = nodes.setdefault(key, {})
        rules = node.setdefault(acl.principal, [])
        rules.append(rule)
        if type(rules) is list and len(rules) > FEW_MAX:
            node[acl.principal] = ManyRules(rules)

    def remove(self, acl: AclBinding) -> None:
        """Have an ACL no more; one that is not there changes nothing."""
        mine = self._rules_of.get((acl.principal, acl.resource_type), {})
        rule = mine.pop(acl, None)
        if rule is None:
            return
        if not mine:
            del self._rules_of[acl.principal, acl.resource_type]
        prefixed = acl.pattern_type is PatternType.PREFIXED
        nodes = self._prefixed if prefixed else self._literal
        key = (acl.resource_type, acl.resource_name)
        rules = nodes[key][acl.principal]
        rules.remove(rule)
        if not rules:
            del nodes[key][acl.principal]
        if not nodes[key]:
            del nodes[key]
            if prefixed:
                self._prefixes[acl.resource_type].discard(acl.resource_name)

    def decide(
        self,
        principal: str,
        host: str,
        operation: Operation,
        resource_type: ResourceType,
        name: str,
        default: Decision,
    ) -> Decision:
        """What ACLs say; ``default`` where none is about the resource. ``host`` is as ``canonical_host``."""
        found: Decision | None = None
        is_named = False
        allowed_by = _ALLOWED_BY.get(operation)
        for node in self._nodes(resource_type, name):
            is_named = True
            denied = allowed = None
            rules: Iterable[Rule] | ManyRules | None
            for rules in (node.get(principal), node.get(EVERYBODY)):
                if isinstance(rules, ManyRules):
                    rules = rules.deciding(host, operation, allowed_by)
                for rule in rules or ():
                    if not rule.applies(operation, allowed_by) or not rule.is_for(host):
                        continue
                    if not rule.decision.allowed:
                        denied = rule if denied is None or rule.order < denied.order else denied
                    elif allowed is None or rule.order > allowed.order:
                        allowed = rule
                if principal == EVERYBODY:
                    break
            if denied is not None:
                return denied.decision
            if allowed is not None:
                found = allowed.decision
        if found is not None:
            return found
        return DEFAULT_DENY if is_named else default

    def _nodes(self, resource_type: ResourceType, name: str) -> Iterator[_Node]:
        """The ACLs of each pattern that fits a resource, in the order in which Kafka comes to them."""
        node = self._literal.get((resource_type, name))
        if node is not None and name != WILDCARD:
            yield node
        prefixes = self._prefixes.get(resource_type)
        if prefixes is not None:
            for prefix in prefixes.of(name):
                yield self._prefixed[resource_type, prefix]
        node = self._literal.get((resource_type, WILDCARD))
        if node is not None:
            yield node

    def allows_any(
        self, principal: str, host: str, operation: Operation, resource_type: ResourceType
    ) -> bool:
        """Whether ACLs allow it for some resource of the type that there may be (KIP-679).

        As ``Authorizer.authorizeByResourceType``, which looks for this very operation, or all.
        """
        allowed: list[AclBinding] = []
        denied: set[str] = set()
        denied_prefixes: set[str] = set()
        everything = False
        for who in {principal, EVERYBODY}:
            for acl, rule in self._rules_of.get((who, resource_type), {}).items():
                if rule.operation not in (operation, Operation.ALL) or not rule.is_for(host):
                    continue
                is_all = acl.pattern_type is PatternType.LITERAL and acl.resource_name == WILDCARD
                if rule.decision.allowed:
                    everything = everything or is_all
                    allowed.append(acl)
                elif is_all:
                    return False
                elif acl.pattern_type is PatternType.LITERAL:
                    denied.add(acl.resource_name)
                else:
                    denied_prefixes.add(acl.resource_name)
        if everything:
            return True
        dominant = _Prefixes(denied_prefixes)
        for acl in allowed:
            if acl.pattern_type is PatternType.LITERAL and acl.resource_name in denied:
                continue
            if next(dominant.of(acl.resource_name), None) is None:
                return True
        return False


class Permissions(Protocol):
    """What one client may do."""

    @property
    def version(self) -> int:
        """Another one where it may be something else by now."""
        ...

    def decide(self, operation: Operation, resource_type: ResourceType, name: str) -> Decision:
        """Whether it may do something to the resource of that very name, and why."""
        ...

    def allows(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """Whether it may do something to the resource of that very name."""
        ...

    def allows_any(self, operation: Operation, resource_type: ResourceType) -> bool:
        """Whether it may do something to some resource of the type."""
        ...

    def operations(self, resource_type: ResourceType, name: str) -> int:
        """What it may do to a resource, as the bits of Kafka's ``authorizedOperations``."""
        ...


@final
class Everything:
    """What everybody may do where no authorizer is configured."""

    __slots__ = ()

    version = 0

    def decide(self, operation: Operation, resource_type: ResourceType, name: str) -> Decision:
        return DEFAULT_ALLOW

    def allows(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        return True

    def allows_any(self, operation: Operation, resource_type: ResourceType) -> bool:
        return True

    def operations(self, resource_type: ResourceType, name: str) -> int:
        return _EVERY_OPERATION[resource_type]


@final
class Authorizer:
    """A node's decisions. ``version`` grows with each change after which they may be others."""

    __slots__ = ("_cached", "_clients", "_default", "_super_users", "acls", "version")

    def __init__(self, super_users: Collection[str] = (), *, allow_if_no_acl: bool = False) -> None:
        """``super_users``: ``User:alice``, as ``super.users`` names them; ``allow_if_no_acl``:
        ``allow.everyone.if.no.acl.found``."""
        self.acls = Acls()
        self.version = 0
        self._super_users = frozenset(super_users)
        self._default = DEFAULT_ALLOW if allow_if_no_acl else DEFAULT_DENY
        self._clients: WeakSet[Decisions] = WeakSet()
        self._cached = 0

    def change(self, removed: Iterable[AclBinding] = (), added: Iterable[AclBinding] = ()) -> None:
        """Have other ACLs from now on."""
        for acl in removed:
            self.acls.remove(acl)
        for acl in added:
            self.acls.add(acl)
        self.version += 1

    def decide(
        self, principal: str, host: str, operation: Operation, resource_type: ResourceType, name: str
    ) -> Decision:
        """Whether a principal may do it from a host to the resource of that very name."""
        if principal in self._super_users:
            return SUPER_USER
        return self.acls.decide(principal, host, operation, resource_type, name, self._default)

    def allows_any(
        self, principal: str, host: str, operation: Operation, resource_type: ResourceType
    ) -> bool:
        """Whether a principal may do it to some resource of the type.

        Like Kafka it first asks for a name that nobody has, which super users, and everybody where no ACLs
        are, may do it to.
        """
        if self.decide(principal, host, operation, resource_type, "hardcode").allowed:
            return True
        return self.acls.allows_any(principal, host, operation, resource_type)

    def client(self, principal: str, host: str) -> Decisions:
        """Decisions for a client, to be asked from now on. ``host`` is its address in any writing."""
        made = Decisions(self, principal, canonical_host(host))
        self._clients.add(made)
        return made

    def count_cached(self) -> None:
        """One more decision is remembered. Where they get too many, all are forgotten."""
        self._cached += 1
        if self._cached > CACHED_IN_ALL_MAX:
            for client in self._clients:
                client.forget()
            self._cached = 0


@final
class Decisions:
    """What was decided for one client, remembered until ACLs change. It is asked for each resource of each
    request, and answers in less than a microsecond."""

    __slots__ = ("__weakref__", "_any", "_authorizer", "_made", "_version", "host", "principal")

    def __init__(self, authorizer: Authorizer, principal: str, host: str) -> None:
        self.principal = principal
        self.host = host
        self._authorizer = authorizer
        self._made: dict[tuple[Operation, ResourceType, str], Decision] = {}
        self._any: dict[tuple[Operation, ResourceType], bool] = {}
        self._version = authorizer.version

    @property
    def version(self) -> int:
        """Grows with each change of the ACLs."""
        return self._authorizer.version

    def allows(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """Whether the client may do it."""
        return self.decide(operation, resource_type, name).allowed

    def decide(self, operation: Operation, resource_type: ResourceType, name: str) -> Decision:
        """Whether the client may do it, and why."""
        authorizer = self._authorizer
        if self._version != authorizer.version:
            self.forget()
        key = (operation, resource_type, name)
        decision = self._made.get(key)
        if decision is None:
            decision = authorizer.decide(self.principal, self.host, operation, resource_type, name)
            if len(name) <= CACHED_NAME_MAX:
                if len(self._made) >= CACHED_MAX:
                    self._made.clear()
                authorizer.count_cached()
                self._made[key] = decision
        return decision

    def allows_any(self, operation: Operation, resource_type: ResourceType) -> bool:
        """Whether the client may do it to some resource of the type."""
        if self._version != self._authorizer.version:
            self.forget()
        key = (operation, resource_type)
        allowed = self._any.get(key)
        if allowed is None:
            allowed = self._any[key] = self._authorizer.allows_any(
                self.principal, self.host, operation, resource_type
            )
        return allowed

    def operations(self, resource_type: ResourceType, name: str) -> int:
        """What the client may do to a resource, as the bits of Kafka's ``authorizedOperations``."""
        return bits(
            operation for operation in SUPPORTED[resource_type] if self.allows(operation, resource_type, name)
        )

    def forget(self) -> None:
        """Decide everything anew."""
        self._made.clear()
        self._any.clear()
        self._version = self._authorizer.version


def bits(operations: Iterable[Operation]) -> int:
    """Operations as the bits that their codes number (``Utils.to32BitField``)."""
    field = 0
    for operation in operations:
        field |= 1 << operation
    return field


_EVERY_OPERATION: Final[dict[ResourceType, int]] = {kind: bits(each) for kind, each in SUPPORTED.items()}
