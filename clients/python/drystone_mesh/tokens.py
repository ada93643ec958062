"""Verification of access tokens (RFC 9068).

The format of a token (length, segments, canonical base64url, JSON without duplicate members, the allowed header) is
checked here, since JOSE libraries for Python are lenient about it; joserfc verifies the signature.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import JoseError

from .errors import Failure
from .keys import KeySet, decode_base64url
from .revocations import RevocationView

# The key set uses `EdDSA` (RFC 8037); joserfc warns on each use since RFC 9864.
warnings.filterwarnings("ignore", message=r".*EdDSA is deprecated via RFC 9864")

MAX_LENGTH = 8 * 1024
#: Tolerated clock skew in seconds.
LEEWAY = 5
#: Maximum lifetime from `iat` to `exp`, in seconds.
MAX_LIFETIME = 3600
_MAX_DEPTH = 8
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class TokenError(Exception):
    """Why a token is refused. Contains nothing of the token, so it is safe to log and to return."""

    reason = "TOKEN_INVALID"

    def to_failure(self) -> Failure:
        return Failure(self.reason, f"the access token is not valid: {self}; sign in again")


class TokenExpired(TokenError):
    reason = "TOKEN_EXPIRED"

    def to_failure(self) -> Failure:
        return Failure(self.reason, "the access token has expired; refresh it")


class TokenRevoked(TokenError):
    reason = "TOKEN_REVOKED"

    def to_failure(self) -> Failure:
        return Failure(self.reason, "the access token has been revoked; sign in again")


class NotReady(TokenError):
    """No keys or no revocations have been received yet, so no token can be verified."""

    reason = "UNAVAILABLE"

    def to_failure(self) -> Failure:
        return Failure(self.reason, "access tokens cannot be verified yet; try again shortly", retry_after=1)


@dataclass(frozen=True)
class Principal:
    """The end user of a call, from a verified token."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    token_id: uuid.UUID
    #: When the token was issued, in milliseconds precision.
    issued_at: datetime.datetime
    expires_at: datetime.datetime
    #: When the user last authenticated.
    auth_time: datetime.datetime
    #: How (RFC 8176), such as `pwd` and `otp`.
    amr: tuple[str, ...]
    roles: tuple[str, ...]
    permissions: frozenset[str]
    #: The properties of the user: relation by property id.
    properties: dict[str, str]

    def has_used(self, method: str) -> bool:
        """Whether the user has authenticated by this method (RFC 8176) in this session."""
        return method in self.amr

    def has_permission(self, permission: str) -> bool:
        """Whether the user has this permission. Who has `RESOURCE:ACTION:any` has `RESOURCE:ACTION:own`."""
        if permission in self.permissions:
            return True
        return permission.endswith(":own") and permission.removesuffix("own") + "any" in self.permissions


class Verifier:
    """Verifies access tokens locally."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeySet,
        revocations: RevocationView,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.keys = keys
        self.revocations = revocations
        self._clock = clock

    def verify(self, token: str) -> Principal:
        """The user of a valid token. Raises `TokenError` with the first fault."""
        if len(token) > MAX_LENGTH:
            raise TokenError("it is longer than 8 KiB")
        if self.revocations.last_heard is None:
            raise NotReady("no revocations have been received yet")
        payload = self._verified_payload(token)
        principal = self._principal(_object(payload, "its claims are not those of an access token"))
        if self.revocations.is_revoked(
            principal.user_id, principal.session_id, principal.issued_at, principal.roles
        ):
            raise TokenRevoked("it has been revoked")
        return principal

    def _verified_payload(self, token: str) -> bytes:
        segments = token.split(".")
        if len(segments) != 3 or not all(segments):
            raise TokenError("it does not have three segments")
        try:
            header, payload, _signature = (decode_base64url(segment) for segment in segments)
        except ValueError:
            raise TokenError("a segment is not base64url without padding") from None
        members = _object(header, "its header does not have exactly alg, typ and kid")
        if members.keys() != {"alg", "typ", "kid"} or not all(type(value) is str for value in members.values()):
            raise TokenError("its header does not have exactly alg, typ and kid")
        # RFC 9068, section 4. The media type may be given with or without its prefix (RFC 7515, section 4.1.9).
        if members["typ"] not in ("at+jwt", "application/at+jwt"):
            raise TokenError("its typ is not at+jwt")
        if self.revocations.is_key_revoked(members["kid"]):
            raise TokenRevoked("its key has been withdrawn")
        key = self.keys.get(members["kid"])
        if key is None:
            self.keys.want()
            if not self.keys.is_loaded:
                raise NotReady("no keys have been fetched yet")
            if self.revocations.was_key_revoked_lately:
                raise NotReady("the keys are being fetched, since one was withdrawn")
            raise TokenError("no key has its kid")
        if members["alg"] != key.algorithm:
            raise TokenError("its alg is not that of its key")
        try:
            jws.deserialize_compact(token, key.key, algorithms=[key.algorithm])
        except (JoseError, ValueError):
            raise TokenError("its signature is invalid") from None
        return payload

    def _principal(self, claims: dict[str, Any]) -> Principal:
        issuer, audience = _text(claims, "iss"), _text(claims, "aud")
        user_id, session_id, token_id = (_id(claims, name) for name in ("sub", "sid", "jti"))
        issued, expires, auth_time = (_integer(claims, name) for name in ("iat", "exp", "auth_time"))
        not_before = _integer(claims, "nbf") if "nbf" in claims else issued
        amr, roles, permissions = (_texts(claims, name) for name in ("amr", "roles", "perms"))
        properties = _text_map(claims, "props")
        if issuer != self.issuer:
            raise TokenError("its issuer is not the expected one")
        if audience != self.audience:
            raise TokenError("its audience is not the expected one")
        if not 0 < expires - issued <= MAX_LIFETIME:
            raise TokenError("its lifetime is invalid")
        now = self._clock()
        if max(issued, not_before) > math.floor(now) + LEEWAY:
            raise TokenError("it is not valid yet")
        if now - expires >= LEEWAY:
            raise TokenExpired("it has expired")
        issued_at = _issue_time(token_id, issued)
        if not 0 <= auth_time <= issued + LEEWAY:
            _refuse_claims()
        return Principal(
            user_id=user_id,
            session_id=session_id,
            token_id=token_id,
            issued_at=issued_at,
            expires_at=datetime.datetime.fromtimestamp(expires, datetime.UTC),
            auth_time=datetime.datetime.fromtimestamp(auth_time, datetime.UTC),
            amr=amr,
            roles=roles,
            permissions=frozenset(permissions),
            properties=properties,
        )


def _refuse_claims() -> NoReturn:
    raise TokenError("its claims are not those of an access token")


def _object(content: bytes, fault: str) -> dict[str, Any]:
    """Parses a JSON object of limited depth and valid Unicode, without duplicate members (RFC 8725, section 2.4)."""
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
        # Refuses lone surrogates, which escapes can express.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise TokenError(fault) from None
    if not isinstance(value, dict) or not _is_shallow(value, _MAX_DEPTH):
        raise TokenError(fault)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def _whole(text: str) -> int | float:
    # The other verifiers of the mesh parse `-0` as a floating-point number.
    return _finite(text) if text == "-0" or len(text) > 20 else int(text)


def _is_shallow(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested at most this deep."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in inner)


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if type(value) is str else _refuse_claims()


def _integer(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # `bool` is a subclass of `int`.
    return value if type(value) is int and -(2**63) <= value < 2**63 else _refuse_claims()


def _texts(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name, [])
    if type(value) is not list or not all(type(item) is str for item in value):
        _refuse_claims()
    return tuple(value)


def _text_map(claims: dict[str, Any], name: str) -> dict[str, str]:
    value = claims.get(name, {})
    if type(value) is not dict or not all(type(item) is str for item in value.values()):
        _refuse_claims()
    return value


def _id(claims: dict[str, Any], name: str) -> uuid.UUID:
    """A UUID in canonical form (lower case, hyphens) that is not nil."""
    text = _text(claims, name)
    if not _UUID.fullmatch(text) or not (value := uuid.UUID(text)).int:
        _refuse_claims()
    return value


def _issue_time(token_id: uuid.UUID, issued: int) -> datetime.datetime:
    """The issue time in a UUIDv7. It is compared with revocations, so it must match `iat`."""
    millis = token_id.int >> 80
    if token_id.variant != uuid.RFC_4122 or token_id.version != 7 or abs(millis // 1000 - issued) > LEEWAY:
        _refuse_claims()
    return datetime.datetime.fromtimestamp(millis // 1000, datetime.UTC).replace(microsecond=millis % 1000 * 1000)
