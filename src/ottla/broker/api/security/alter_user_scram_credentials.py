"""AlterUserScramCredentials: give users passwords, or take them away (KIP-554, ScramControlManager).

v0. Clients send what SCRAM makes of a password and a salt; what is kept is made of that, and cannot be turned
back. A user may be named once: otherwise it is DUPLICATE_RESOURCE, unless what was asked first is wrong by
itself, and nothing changes for that one. They are in force on this node when the answer arrives. Kafka lets
salts and names be of any length, and fails where nothing was made of a password.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, Pace, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.access import NO_SUCH_CREDENTIAL, CredentialChange, alter_credentials
from ottla.security.sasl.scram import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    ScramHash,
    credential_of_salted,
)

NAME_CHARACTERS_MAX = 4_096
SALT_BYTES_MAX = 1_024

_HASHES = {hash.number: hash for hash in ScramHash}
_TWICE = KafkaError(
    ErrorCode.duplicate_resource, "A user credential cannot be altered twice in the same request"
)


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    pace = Pace(ctx)
    scram = ctx.services.metadata.image.scram

    def deletion(asked: Any) -> CredentialChange | KafkaError:
        return _deletion(asked, scram.get(asked.name, ()))

    changes: dict[str, CredentialChange | KafkaError] = {}
    for asked, make in ((request.deletions, deletion), (request.upsertions, _upsertion)):
        for one in asked:
            before = changes.get(one.name)
            if not isinstance(before, KafkaError):
                changes[one.name] = make(one) if before is None else _TWICE
            if pace.is_over():
                await pace.pause()
    tried = [change for change in changes.values() if isinstance(change, CredentialChange)]
    errors = await alter_credentials(ctx.services.metadata.controller, tried)
    outcome: dict[str, KafkaError | None] = {
        user: change for user, change in changes.items() if isinstance(change, KafkaError)
    }
    outcome |= {change.user: error for change, error in zip(tried, errors, strict=True)}
    results = Lazy(len(outcome), (_result(user, error) for user, error in outcome.items()))
    fields: Fields = {"throttle_time_ms": 0, "results": results}
    return await in_pieces(ctx, fields) if len(outcome) > AT_ONCE_MAX else fields


def _deletion(asked: Any, there: Container[ScramHash]) -> CredentialChange | KafkaError:
    hash = _hash(asked)
    if isinstance(hash, KafkaError):
        return hash
    if hash not in there:
        return NO_SUCH_CREDENTIAL
    return CredentialChange(asked.name, hash, None)


def _upsertion(asked: Any) -> CredentialChange | KafkaError:
    hash = _hash(asked)
    if isinstance(hash, KafkaError):
        return hash
    if asked.iterations < ITERATIONS_MIN:
        return _unacceptable("Too few iterations")
    if asked.iterations > ITERATIONS_MAX:
        return _unacceptable("Too many iterations")
    if not asked.salted_password:
        return _unacceptable("A password must not be empty")
    if len(asked.salt) > SALT_BYTES_MAX:
        return _unacceptable(f"A salt may have {SALT_BYTES_MAX} bytes")
    credential = credential_of_salted(hash, bytes(asked.salted_password), bytes(asked.salt), asked.iterations)
    return CredentialChange(asked.name, hash, credential)


def _hash(asked: Any) -> ScramHash | KafkaError:
    if not asked.name:
        return _unacceptable("Username must not be empty")
    if len(asked.name) > NAME_CHARACTERS_MAX:
        return _unacceptable(f"A username may have {NAME_CHARACTERS_MAX} characters")
    found = _HASHES.get(asked.mechanism)
    if found is None:
        return KafkaError(ErrorCode.unsupported_sasl_mechanism, "Unknown SCRAM mechanism")
    return found


def _unacceptable(why: str) -> KafkaError:
    return KafkaError(ErrorCode.unacceptable_credential, why)


def _result(user: str, error: KafkaError | None) -> Fields:
    if error is None:
        return {"user": user, "error_code": 0, "error_message": None}
    return {"user": user, "error_code": int(error.code), "error_message": error.message}
