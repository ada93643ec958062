"""The public keys that verify access tokens, kept in sync with the key set of the auth service."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from .backoff import Backoff

_LOG = logging.getLogger("drystone.keys")

#: Seconds between two scheduled fetches.
REFRESH_INTERVAL = 60.0
#: Minimum seconds between two fetches, even if tokens have an unknown kid.
MIN_REFRESH_INTERVAL = 5.0
_FETCH_TIMEOUT = 5.0


class KeyFault(Exception):
    """A JWK that cannot be used."""


def decode_base64url(text: str) -> bytes:
    """Decodes canonical base64url without padding or unused bits. Raises `ValueError`."""
    # Python's decoder ignores characters outside the alphabet, so the result is encoded again and compared.
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(decoded) != text:
        raise ValueError("not base64url without padding")
    return decoded


def encode_base64url(content: bytes) -> str:
    """Encodes as base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass(frozen=True)
class PublicKey:
    """A public key and its algorithm."""

    kid: str
    algorithm: str
    key: ECKey | OKPKey | RSAKey

    @classmethod
    def from_jwk(cls, jwk: Any) -> PublicKey:
        """Imports a `drystone.auth.v1.Jwk` (RFC 7517). Raises `KeyFault`."""
        if not jwk.kid or len(jwk.kid.encode()) > 256:
            raise KeyFault("no valid kid")
        if jwk.use != "sig":
            raise KeyFault("use is not sig")
        try:
            return cls(jwk.kid, jwk.alg, _material(jwk))
        except (ValueError, JoseError) as error:
            raise KeyFault(f"invalid key: {error}") from error


def _material(jwk: Any) -> ECKey | OKPKey | RSAKey:
    match jwk.kty, jwk.crv, jwk.alg:
        case "EC", "P-256", "ES256":
            for coordinate in (jwk.x, jwk.y):
                _check_length(coordinate, 32)
            key: Any = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y})
        case "OKP", "Ed25519", "EdDSA" if not jwk.y:
            _check_length(jwk.x, 32)
            key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": jwk.x})
        case "RSA", "", "RS256":
            modulus = decode_base64url(jwk.n)
            if modulus[:1] == b"\0" or not 2048 <= int.from_bytes(modulus).bit_length() <= 4096:
                raise ValueError("an RSA key must have 2048 to 4096 bits, without a leading zero")
            if decode_base64url(jwk.e) != b"\x01\x00\x01":
                raise ValueError("the exponent of an RSA key must be 65537")
            key = RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e})
        case _:
            raise ValueError("unsupported combination of kty, crv and alg")
    # joserfc parses a key lazily; this detects a point that is not on its curve.
    if key.public_key is None:
        raise ValueError("no public key")
    return key


def _check_length(text: str, length: int) -> None:
    if len(decode_base64url(text)) != length:
        raise ValueError(f"a coordinate must have {length} bytes")


class KeySet:
    """The current keys, replaced atomically. Thread-safe."""

    def __init__(self) -> None:
        self._keys: dict[str, PublicKey] = {}
        self._wanted = threading.Event()

    def replace(self, keys: Iterable[PublicKey]) -> None:
        """Replaces all keys. Of two keys with the same kid the first is used."""
        replacement: dict[str, PublicKey] = {}
        for key in keys:
            replacement.setdefault(key.kid, key)
        self._keys = replacement

    def get(self, kid: str) -> PublicKey | None:
        return self._keys.get(kid)

    @property
    def is_loaded(self) -> bool:
        return bool(self._keys)

    def want(self) -> None:
        """Requests an early fetch, after a token with an unknown kid."""
        self._wanted.set()

    def wait_until_wanted(self, timeout: float) -> None:
        self._wanted.wait(timeout)

    def clear_wanted(self) -> None:
        self._wanted.clear()


class KeyWatcher:
    """Fetches the keys with `KeyService/GetJwks` immediately, then every minute, and sooner for an unknown kid."""

    def __init__(
        self,
        keys: KeySet,
        messages: Any,
        channel: Callable[[], grpc.Channel],
        *,
        interval: float = REFRESH_INTERVAL,
        min_interval: float = MIN_REFRESH_INTERVAL,
    ) -> None:
        self._keys = keys
        self._channel = channel
        self._intervals = (interval, min_interval)
        self._request = messages.get("drystone.auth.v1.GetJwksRequest")
        self._response = messages.get("drystone.auth.v1.JwkSet")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drystone-keys", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._keys.want()
        self._thread.join()

    def _run(self) -> None:
        interval, min_interval = self._intervals
        backoff = Backoff(0.05, 5)
        while not self._stop.is_set():
            self._keys.clear_wanted()
            try:
                self._keys.replace(self._fetch())
            except Exception as error:  # on any error the previous keys stay in use and the fetch is retried
                delay = backoff.failed()
                if backoff.is_lasting:
                    fields = {"error": _text(error), "loaded": self._keys.is_loaded}
                    _LOG.warning("token keys not fetched", extra={"fields": fields})
                self._stop.wait(delay)
                continue
            backoff.succeeded()
            if not self._stop.wait(min_interval):
                self._keys.wait_until_wanted(interval - min_interval)

    def _fetch(self) -> list[PublicKey]:
        call = self._channel().unary_unary(
            "/drystone.auth.v1.KeyService/GetJwks",
            request_serializer=self._request.SerializeToString,
            response_deserializer=self._response.FromString,
        )
        keys = []
        for jwk in call(self._request(), timeout=_FETCH_TIMEOUT).keys:
            try:
                keys.append(PublicKey.from_jwk(jwk))
            except KeyFault as error:
                _LOG.warning("token key ignored", extra={"fields": {"kid": jwk.kid, "error": str(error)}})
        if not keys:
            raise KeyFault("the response has no usable key")
        return keys


def _text(error: Exception) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else repr(error)
