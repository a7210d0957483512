"""Rules that make a user's name of a longer one: ``ssl.principal.mapping.rules`` for names of certificates
(Kafka's SslPrincipalMapper, KIP-371), ``sasl.kerberos.principal.to.local.rules`` (KerberosShortNamer).

Patterns are Java's, as far as they can be matched in bounded time; RuleError says what a rule must not have.
What Kafka would find out when a client comes, such as a group that is not there, is refused with the rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from ottla.security.patterns.match import JavaPattern, TooMuchWork, Work
from ottla.security.patterns.parse import PatternError
from ottla.security.patterns.replace import Replacement

DEFAULT: Final = "DEFAULT"

_SSL_RULE = r"(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?).*?|(.*?)"
_SSL_SPLITTER: Final = re.compile(rf"\s*(?P<rule>{_SSL_RULE})\s*(?:,\s*|\Z)", re.ASCII)
_SSL_RULE_ALONE: Final = re.compile(
    r"(?P<default>DEFAULT)|RULE:(?P<pattern>(?:\\.|[^\\/])*)/(?P<to>(?:\\.|[^\\/])*)/(?P<case>[LU]?)"
)
_REFERENCE: Final = re.compile(r"\$([0-9]+)")
_KERBEROS_RULE: Final = re.compile(
    r"(?P<default>DEFAULT)|RULE:\[(?P<components>\d+):(?P<format>[^\]]*)\](?:\((?P<match>[^)]*)\))?"
    r"(?:s/(?P<from>[^/]*)/(?P<to>[^/]*)/(?P<all>g)?)?/?(?P<case>[LU])?",
    re.ASCII,
)
_PARAMETER: Final = re.compile(r"\$(\d*)", re.ASCII)
_KERBEROS_NAME: Final = re.compile(r"([^/@]*)(?:/([^/@]*))?@([^/@]*)")
# Principals have one part or two; more are not split.
COMPONENTS_MAX: Final = 1_000


class RuleError(ValueError):
    """A rule that is wrong, or has what is not taken here."""


class NoName(Exception):
    """No rule makes a name of it, or none in the time that there is."""


class _Case(NamedTuple):
    lower: bool
    upper: bool

    def of(self, name: str) -> str:
        return name.lower() if self.lower else name.upper() if self.upper else name


class _SslRule(NamedTuple):
    # None: names are taken as they are.
    pattern: JavaPattern | None
    replacement: Replacement | None
    case: _Case


@final
class SslPrincipalMapper:
    """The rules of a listener; the first whose pattern is like all of a name makes the principal's name."""

    __slots__ = ("_rules",)

    def __init__(self, rules: str = DEFAULT) -> None:
        """RuleError."""
        self._rules = [
            rule
            for found in _SSL_SPLITTER.finditer(rules.strip())
            if (rule := _ssl_rule(found["rule"])) is not None
        ]

    def name(self, distinguished_name: str) -> str:
        """NoName."""
        work = Work()
        try:
            for pattern, replacement, case in self._rules:
                if pattern is None or replacement is None:
                    return distinguished_name
                if pattern.matches(distinguished_name, work) is not None:
                    return case.of(replacement.in_all(distinguished_name, work))
        except TooMuchWork:
            raise NoName("the rules cannot be tried on a name so long") from None
        raise NoName(f"no rule of {len(self._rules)} is for the name")


def _ssl_rule(text: str) -> _SslRule | None:
    """None: an empty one."""
    if not text:
        return None
    found = _SSL_RULE_ALONE.fullmatch(text)
    if found is None:
        raise RuleError(f"Invalid rule: {text}; it has to be DEFAULT or RULE:pattern/replacement/[LU]")
    case = _Case(found["case"] == "L", found["case"] == "U")
    if found["default"]:
        return _SslRule(None, None, case)
    try:
        pattern = JavaPattern(found["pattern"])
        replacement = Replacement(pattern, _literal_references(found["to"], pattern.groups))
    except PatternError as error:
        raise RuleError(f"Invalid rule: {text}: {error}") from None
    return _SslRule(pattern, replacement, case)


def _literal_references(template: str, groups: int) -> str:
    """A reference to a group that is not there, where there are others, is text."""

    def reference(found: re.Match[str]) -> str:
        digits = found[1]
        number = int(digits[:9])
        while number > groups and number >= 10:
            number //= 10
        return "\\" + found[0] if number > groups and not digits.startswith("0") else found[0]

    return _REFERENCE.sub(reference, template) if groups else template


class KerberosName(NamedTuple):
    """``service/host@REALM``; the host may be missing, and the realm with it."""

    service: str
    host: str | None
    realm: str | None

    def __str__(self) -> str:
        host = "" if self.host is None else f"/{self.host}"
        realm = "" if self.realm is None else f"@{self.realm}"
        return f"{self.service}{host}{realm}"


def parse_kerberos_name(text: str) -> KerberosName:
    """ValueError."""
    found = _KERBEROS_NAME.fullmatch(text)
    if found is not None:
        return KerberosName(found[1], found[2], found[3])
    if "@" in text:
        raise ValueError(f"Malformed Kerberos name: {text!r}")
    return KerberosName(text, None, None)


class _KerberosRule(NamedTuple):
    # None: DEFAULT, the service of whoever is of this realm.
    components: int | None
    # Texts, and numbers of components, where the realm is 0.
    format: tuple[str | int, ...] = ()
    match: JavaPattern | None = None
    replacement: Replacement | None = None
    replaces_all: bool = False
    case: _Case = _Case(False, False)


@final
class KerberosShortNamer:
    """The rules for Kerberos principals; the first that is for one makes its name."""

    __slots__ = ("_default_realm", "_rules")

    def __init__(self, default_realm: str, rules: Sequence[str] = (DEFAULT,)) -> None:
        """``default_realm``: the machine's. RuleError."""
        self._default_realm = default_realm
        self._rules = [_kerberos_rule(rule) for rule in rules]

    def name(self, principal: KerberosName) -> str:
        """NoName, also where a rule is for it and makes what is no simple name."""
        service, host, realm = principal
        if realm is None:
            return service
        components = (realm, service) if host is None else (realm, service, host)
        work = Work()
        try:
            for rule in self._rules:
                name = self._apply(rule, components, work)
                if name is None:
                    continue
                if "/" in name or "@" in name:
                    raise NoName("a rule does not make a simple name of the principal")
                return rule.case.of(name)
        except TooMuchWork:
            raise NoName("the rules cannot be tried on a principal so long") from None
        raise NoName(f"no rule of {len(self._rules)} is for the principal")

    def _apply(self, rule: _KerberosRule, components: tuple[str, ...], work: Work) -> str | None:
        if rule.components is None:
            return components[1] if components[0] == self._default_realm else None
        if rule.components != len(components) - 1:
            return None
        base = "".join(part if isinstance(part, str) else components[part] for part in rule.format)
        if rule.match is not None and rule.match.matches(base, work) is None:
            return None
        if rule.replacement is None:
            return base
        return (
            rule.replacement.in_all(base, work)
            if rule.replaces_all
            else rule.replacement.in_first(base, work)
        )


def _kerberos_rule(text: str) -> _KerberosRule:
    found = _KERBEROS_RULE.fullmatch(text)
    if found is None:
        raise RuleError(
            f"Invalid rule: {text}; it has to be DEFAULT or RULE:[n:format](match)s/from/to/g/[LU]"
        )
    if found["default"]:
        return _KerberosRule(None)
    components = int(found["components"][:9])
    if components > COMPONENTS_MAX:
        raise RuleError(f"Invalid rule: {text}: no principal has {components} components")
    replacement = None
    try:
        match = None if found["match"] is None else JavaPattern(found["match"])
        if found["from"] is not None:
            replacement = Replacement(JavaPattern(found["from"]), found["to"])
    except PatternError as error:
        raise RuleError(f"Invalid rule: {text}: {error}") from None
    return _KerberosRule(
        components,
        tuple(_format(text, found["format"], components)),
        match,
        replacement,
        found["all"] is not None,
        _Case(found["case"] == "L", found["case"] == "U"),
    )


def _format(rule: str, format: str, components: int) -> list[str | int]:
    parts: list[str | int] = []
    at = 0
    for found in _PARAMETER.finditer(format):
        parts.append(format[at : found.start()])
        at = found.end()
        if not found[1] or int(found[1][:9]) > components:
            raise RuleError(f"Invalid rule: {rule}: {found[0]} is outside of the range $0 to ${components}")
        parts.append(int(found[1]))
    return [*parts, format[at:]]
