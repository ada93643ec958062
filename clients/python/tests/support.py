"""Test support: a CA, tokens, compiled contracts, and mock auth and session services."""

import datetime
import functools
import glob
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent import futures
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parent))

from drystone_mesh import Messages  # noqa: E402
from drystone_mesh.keys import encode_base64url  # noqa: E402

# Only tests that install a handler see the log of the package.
logging.getLogger("drystone").addHandler(logging.NullHandler())

DOMAIN = "drystone.local"
ISSUER = "https://id.example.org"
AUDIENCE = "drystone"
WORKLOADS = ("auth", "user", "session", "property", "things", "unlisted", "edge", "ingress", "operator")


def protoc(*arguments, cwd=ROOT):
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, cwd=cwd)


@functools.cache
def scratch():
    """A temporary directory, removed when the process exits."""
    directory = tempfile.TemporaryDirectory(prefix="drystone-python-")
    scratch.directory = directory
    return Path(directory.name)


@functools.cache
def platform_set():
    """The descriptor set of the platform: from `DRYSTONE_PLATFORM`, or compiled here."""
    if exported := os.environ.get("DRYSTONE_PLATFORM"):
        return Path(exported)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    found = sorted(glob.glob(f"{home}/registry/src/*/prost-protovalidate-types-*/proto"))
    if not found:
        raise RuntimeError("set DRYSTONE_PLATFORM to the output of `drystone contract export`")
    proto = ROOT / "proto"
    files = [str(path.relative_to(proto)) for folder in ("drystone", "google") for path in (proto / folder).rglob("*.proto")]
    path = scratch() / "drystone.binpb"
    protoc("-I", str(proto), "-I", found[-1], "--include_imports", f"--descriptor_set_out={path}", *files)
    return path


@functools.cache
def things_set():
    """The descriptor set of the test contract."""
    path = scratch() / "things.binpb"
    protoc(
        f"--descriptor_set_in={platform_set()}", "-I", str(HERE / "proto"), "--include_imports",
        f"--descriptor_set_out={path}", "acme/things/v1/things.proto",
    )  # fmt: skip
    return path


@functools.cache
def platform():
    return Messages.decode(platform_set().read_bytes())


def compile_text(source):
    """The descriptor set of one file with this content."""
    directory = Path(tempfile.mkdtemp(dir=scratch()))
    (directory / "file.proto").write_text(source)
    protoc(
        f"--descriptor_set_in={platform_set()}", "-I", str(directory), "--include_imports",
        f"--descriptor_set_out={directory}/file.binpb", "file.proto",
    )  # fmt: skip
    return (directory / "file.binpb").read_bytes()


def now():
    return datetime.datetime.now(datetime.UTC)


class Authority:
    """A CA like the development CA of Drystone."""

    def __init__(self, domain=DOMAIN):
        self.domain = domain
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {uuid.uuid4().hex[:8]}")])
        builder = x509.CertificateBuilder(self.name, self.name, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now() - datetime.timedelta(minutes=5))
        builder = builder.not_valid_after(now() + datetime.timedelta(days=30))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")]), critical=False
        )
        builder = builder.add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name, *, uris=None, domain=None, lifetime=datetime.timedelta(hours=1), not_before=None, usage=None,
        usage_critical=True, extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH), ca=False,
    ):  # fmt: skip
        """Certificate and key as PEM, for the workload of this name unless options override it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        not_before = not_before or now() - datetime.timedelta(minutes=5)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(not_before).not_valid_after(now() + lifetime)
        uris = [f"spiffe://{domain or self.domain}/service/{name}"] if uris is None else uris
        names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(name), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usage is not False:
            builder = builder.add_extension(usage or key_usage(digital_signature=True), critical=usage_critical)
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def files(self, directory, name, **options):
        """Writes certificate, key and CA to a directory and returns their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{name}.pem", directory / f"{name}.key", directory / "ca.pem"]
        for path, content in zip(paths, [*self.issue(name, **options), self.pem], strict=True):
            path.write_bytes(content)
        return [str(path) for path in paths]

    def channel(self, address, service, credentials):
        """A channel with this certificate and key, or without a client certificate."""
        certificate, key = credentials or (None, None)
        ssl = grpc.ssl_channel_credentials(self.pem, key, certificate)
        options = [("grpc.ssl_target_name_override", service), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(address, ssl, options)


def key_usage(**given):
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


class Signer:
    """Signs ES256 tokens."""

    def __init__(self, kid="key-1"):
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self):
        numbers = self.key.public_key().public_numbers()
        x, y = (encode_base64url(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        jwk = platform().get("drystone.auth.v1.Jwk")
        return jwk(kty="EC", use="sig", alg="ES256", kid=self.kid, crv="P-256", x=x, y=y)

    def header(self, **changes):
        return {"alg": "ES256", "typ": "at+jwt", "kid": self.kid} | changes

    def sign_bytes(self, message):
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def sign_segments(self, header, payload):
        return f"{header}.{payload}.{encode_base64url(self.sign_bytes(f'{header}.{payload}'.encode()))}"

    def sign(self, payload, header=None):
        header = self.header() if header is None else header
        return self.sign_segments(*(encode_base64url(as_bytes(part)) for part in (header, payload)))

    def token(self, at=None, **changes):
        return self.sign(claims(at, **changes))


def as_bytes(part):
    if isinstance(part, bytes):
        return part
    return (part if isinstance(part, str) else json.dumps(part)).encode()


def uuid7(at):
    random = uuid.uuid4().int
    return str(uuid.UUID(int=int(at * 1000) << 80 | 7 << 76 | (random >> 64 & 0xFFF) << 64 | 2 << 62 | random & (2**62 - 1)))


def claims(at=None, **changes):
    """The claims of a valid token."""
    at = time.time() if at is None else at
    valid = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": uuid7(at),
        "sid": uuid7(at),
        "jti": uuid7(at),
        "iat": int(at),
        "exp": int(at) + 300,
        "auth_time": int(at),
        "amr": ["pwd"],
        "roles": ["member"],
        "perms": [],
        "props": {},
    }
    return valid | changes


class AuthService:
    """A mock auth service that serves a key set."""

    def __init__(self, signers):
        self.signers = list(signers)
        self.fetches = 0
        self.callers = set()

    def add_to(self, server):
        request, response = (platform().get(f"drystone.auth.v1.{name}") for name in ("GetJwksRequest", "JwkSet"))

        def get_jwks(_request, context):
            self.fetches += 1
            self.callers |= set(context.peer_identities() or ())
            return response(keys=[signer.jwk() for signer in self.signers])

        handler = grpc.unary_unary_rpc_method_handler(get_jwks, request.FromString, response.SerializeToString)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("drystone.auth.v1.KeyService", {"GetJwks": handler}),)
        )


class SessionService:
    """A mock session service that streams revocations."""

    HEARTBEAT = 0.2

    def __init__(self):
        self.history = []
        self.acknowledged = []
        self.heartbeats = True
        self._streams = []
        self._condition = threading.Condition()

    def add_to(self, server):
        names = ("WatchRevocationsRequest", "WatchRevocationsResponse")
        request, self.response = (platform().get(f"drystone.session.v1.{name}") for name in names)
        handler = grpc.stream_stream_rpc_method_handler(self._watch, request.FromString, self.response.SerializeToString)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("drystone.session.v1.SessionService", {"WatchRevocations": handler}),)
        )

    def _watch(self, requests, context):
        outgoing = queue.Queue()
        context.add_callback(lambda: outgoing.put(None))
        cursor = next(requests).cursor
        with self._condition:
            self._streams.append((outgoing, context))
            self.acknowledged.append(("first", cursor))
            outgoing.put(self.response(revocations=self.history[cursor:], cursor=len(self.history)))
            self._condition.notify_all()

        def read():
            try:
                for message in requests:
                    with self._condition:
                        self.acknowledged.append(("ack", message.cursor))
                        self._condition.notify_all()
            except Exception:  # the stream was cancelled
                pass

        threading.Thread(target=read, daemon=True).start()
        while context.is_active():
            try:
                answer = outgoing.get(timeout=self.HEARTBEAT)
            except queue.Empty:
                if not self.heartbeats:
                    continue
                answer = self.response(cursor=len(self.history))
            if answer is None:
                return
            yield answer

    def revoke(self, **scope):
        """Sends a revocation and waits until it has been acknowledged."""
        revocation = platform().get("drystone.session.v1.Revocation")(**scope)
        revocation.expire_time.FromDatetime(now() + datetime.timedelta(hours=1))
        with self._condition:
            self.history.append(revocation)
            cursor = len(self.history)
            for outgoing, _ in self._streams:
                outgoing.put(self.response(revocations=[revocation], cursor=cursor))
            assert self._condition.wait_for(lambda: ("ack", cursor) in self.acknowledged, 10), self.acknowledged

    def revoke_session(self, session_id):
        self.revoke(session_id=session_id)

    def break_streams(self):
        with self._condition:
            streams, self._streams = self._streams, []
        for outgoing, context in streams:
            outgoing.put(None)
            context.cancel()

    def lose_history(self):
        """Restarts the cursor, as a session service does whose store was lost."""
        self.history.clear()
        self.acknowledged.clear()

    def wait_for(self, condition):
        with self._condition:
            return self._condition.wait_for(lambda: condition(self.acknowledged), 10)


def start_server(authority, name, *services):
    """Starts a mutual TLS server of this workload on a free port; returns the server and its address."""
    certificate, key = authority.issue(name)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    for service in services:
        service.add_to(server)
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, f"127.0.0.1:{port}"
