"""Workload identities: SPIFFE IDs, X.509-SVIDs, and the certificate files of this workload.

The rules are those of the SPIFFE-ID and X.509-SVID standards and of the certificate profile in docs/security.md: one URI
SAN, no CA, a critical key usage with digitalSignature and without keyCertSign and cRLSign, and an extended key usage with
serverAuth and clientAuth.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

_LOG = logging.getLogger("drystone.identity")
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_MAX_BYTES = 2048


class IdentityError(Exception):
    """An invalid certificate or SPIFFE ID, or unusable certificate files."""


@dataclass(frozen=True)
class SpiffeId:
    """The identity of a workload, such as `spiffe://drystone.local/service/orders`."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises `IdentityError` for an invalid ID, and for a trust domain without a path."""
        scheme = "spiffe://"
        if not text.startswith(scheme) or len(text.encode()) > _MAX_BYTES:
            raise IdentityError("a SPIFFE ID starts with `spiffe://` and has at most 2048 bytes")
        domain, slash, path = text[len(scheme) :].partition("/")
        if not _DOMAIN.fullmatch(domain):
            raise IdentityError("a trust domain has 1 to 255 characters of `a-z 0-9 . - _`")
        if not slash:
            raise IdentityError("the SPIFFE ID names a trust domain and no workload")
        for segment in path.split("/"):
            if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
                raise IdentityError("the path of the SPIFFE ID is not valid")
        return cls(domain, f"/{path}")

    @property
    def workload(self) -> str | None:
        """NAME if the path is exactly `/service/NAME`."""
        prefix = "/service/"
        name = self.path[len(prefix) :]
        return name if self.path.startswith(prefix) and name and "/" not in name else None

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


@dataclass(frozen=True)
class Svid:
    """The identity and validity of a certificate."""

    id: SpiffeId
    not_before: datetime.datetime
    not_after: datetime.datetime

    def is_valid_at(self, now: float) -> bool:
        """Whether the certificate is valid at this time; `not_after` is exclusive."""
        return self.not_before.timestamp() <= now < self.not_after.timestamp()

    @classmethod
    def parse(cls, certificate: x509.Certificate) -> Svid:
        """Raises `IdentityError` with the first rule that the certificate violates."""
        if certificate.version is not x509.Version.v3:
            raise IdentityError("the certificate is not of version 3")
        try:
            extensions = certificate.extensions
        except (ValueError, x509.DuplicateExtension) as error:
            raise IdentityError("the extensions of the certificate are malformed or duplicate") from error
        names = _extension(extensions, x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
        if len(uris) != 1:
            raise IdentityError(f"the certificate must have exactly one URI, but has {len(uris)}")
        identity = SpiffeId.parse(uris[0])
        constraints = _extension(extensions, x509.BasicConstraints)
        if constraints is not None and constraints.value.ca:
            raise IdentityError("the certificate belongs to a certificate authority")
        usage = _extension(extensions, x509.KeyUsage)
        if usage is None or not usage.critical:
            raise IdentityError("the key usage of the certificate must be present and critical")
        if usage.value.key_cert_sign or usage.value.crl_sign or not usage.value.digital_signature:
            raise IdentityError("the key usage must include digitalSignature and neither keyCertSign nor cRLSign")
        extended = _extension(extensions, x509.ExtendedKeyUsage)
        both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        if extended is not None and not all(oid in extended.value for oid in both):
            raise IdentityError("the extended key usage, if present, must include both serverAuth and clientAuth")
        return cls(identity, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _extension(extensions: x509.Extensions, kind: type) -> x509.Extension | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


@functools.lru_cache(maxsize=1024)
def _parse_pem(pem: bytes) -> Svid | str:
    try:
        return Svid.parse(x509.load_pem_x509_certificate(pem))
    except (ValueError, IdentityError) as error:
        return str(error)


def svid_of_pem(pem: bytes) -> Svid:
    """The SVID of a PEM certificate; the result is cached. Its validity period is not checked here.

    Raises `IdentityError`.
    """
    outcome = _parse_pem(pem)
    if isinstance(outcome, str):
        raise IdentityError(outcome)
    return outcome


def peer_svid(auth_context: dict[str, Sequence[bytes]]) -> Svid:
    """The SVID of the peer, from `ServicerContext.auth_context()`.

    Raises `IdentityError` if there is no valid SVID, or if the connection does not use TLS 1.3.
    """
    # grpcio accepts TLS 1.2 and has no setting to disable it.
    if list(auth_context.get("ssl_tls_version", ())) != [b"TLSv1.3"]:
        raise IdentityError("the connection does not use TLS 1.3")
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise IdentityError("the connection has no client certificate")
    return svid_of_pem(certificates[0])


@dataclass(frozen=True)
class Material:
    """The content of the certificate files, which have been checked to match."""

    certificate: bytes
    key: bytes
    roots: bytes
    svid: Svid


class Identity:
    """The certificate, key and roots of this workload, reloaded when the files change.

    While the files do not match, for example during a replacement, the previous content stays in use.
    """

    def __init__(self, certificate: str, key: str, roots: str, workload: str, trust_domain: str) -> None:
        self._paths = (certificate, key, roots)
        self._expected = SpiffeId(trust_domain, f"/service/{workload}")
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._material = self._load()

    @property
    def trust_domain(self) -> str:
        return self._expected.trust_domain

    @property
    def workload(self) -> str:
        return self._expected.path.removeprefix("/service/")

    def current(self) -> Material:
        """The current content of the files."""
        with self._lock:
            try:
                stamp = self._read_stamp()
                if stamp != self._stamp:
                    self._material = self._load()
                    self._stamp = stamp
            except (OSError, IdentityError) as error:
                _LOG.warning("certificate files not reloaded", extra={"fields": {"error": str(error)}})
            return self._material

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials that require a client certificate; new connections use the current files."""
        first = self.current()
        latest = [first]

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            material = self.current()
            if material is latest[0]:
                return None
            latest[0] = material
            return _server_configuration(material)

        return grpc.dynamic_ssl_server_credentials(_server_configuration(first), fetch, require_client_authentication=True)

    def channel(self, address: str, service: str) -> grpc.Channel:
        """A channel to a service of the mesh, whose certificate must have the service's name as DNS name.

        It uses the current files: create a new channel when they have changed.
        """
        material = self.current()
        credentials = grpc.ssl_channel_credentials(material.roots, material.key, material.certificate)
        return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", service)])

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        stats = [os.stat(path) for path in self._paths]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)

    def _load(self) -> Material:
        certificate, key, roots = (_read(path) for path in self._paths)
        try:
            leaf = x509.load_pem_x509_certificate(certificate)
            private = serialization.load_pem_private_key(key, password=None)
            x509.load_pem_x509_certificates(roots)
        except (ValueError, TypeError) as error:
            raise IdentityError(f"one of {', '.join(self._paths)} is not a PEM file of its kind: {error}") from error
        svid = Svid.parse(leaf)
        if svid.id != self._expected:
            raise IdentityError(f"{self._paths[0]} is the certificate of {svid.id}, not of {self._expected}")
        if leaf.public_key() != private.public_key():
            raise IdentityError(f"{self._paths[0]} and {self._paths[1]} do not match")
        return Material(certificate, key, roots, svid)


class Upstream:
    """A service called by background tasks. Its channel is replaced when the certificate files change."""

    def __init__(self, identity: Identity, address: str, service: str) -> None:
        self._open: Callable[[], grpc.Channel] = lambda: identity.channel(address, service)
        self._identity = identity
        self._material: Material | None = None
        self._channel: grpc.Channel | None = None

    def channel(self) -> grpc.Channel:
        """The channel for the next call. Not thread-safe."""
        material = self._identity.current()
        if self._channel is None or material is not self._material:
            self.close()
            self._material, self._channel = material, self._open()
        return self._channel

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _server_configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.roots)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
