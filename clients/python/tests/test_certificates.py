"""Connections and caller identity over real mutual TLS."""

import datetime
import socket
import ssl
import unittest
from pathlib import Path

import grpc
from mesh import CODES, SERVICE, MeshTest
import support

from drystone_mesh import reason_of


class CertificateTest(MeshTest):
    def test_a_client_without_a_certificate_of_the_ca_gets_no_connection(self):
        foreign = support.Authority()
        same_name = support.Authority()
        for credentials in ((), foreign.issue("auth"), same_name.issue("operator")):
            channel = self.ca.channel(self.server.address, "things", credentials)
            self.channels.enter_context(channel)
            with self.assertRaises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{SERVICE}/ForAny")(b"", timeout=10)
            self.assertEqual(caught.exception.code(), CODES.UNAVAILABLE)
            self.assertIsNone(reason_of(caught.exception))
        with self.assertRaises(grpc.RpcError) as caught:
            plain = self.channels.enter_context(grpc.insecure_channel(self.server.address))
            plain.unary_unary(f"/{SERVICE}/ForAny")(b"", timeout=10)
        self.assertEqual(caught.exception.code(), CODES.UNAVAILABLE)

    def test_a_certificate_that_is_no_svid_is_unidentified(self):
        usage = support.key_usage
        auth = "spiffe://drystone.local/service/auth"
        for options in (
            {"uris": []},
            {"uris": [auth, auth]},
            {"uris": [auth + "/"]},
            {"uris": ["spiffe://drystone.local"]},
            {"usage": usage(digital_signature=True, key_cert_sign=True)},
            {"usage_critical": False},
            {"extended": support.Authority.issue.__kwdefaults__["extended"][1:]},
        ):
            with self.subTest(options):
                error = self.refused("CALLER_UNIDENTIFIED", None, "ForAny", credentials=self.ca.issue("auth", **options))
                self.assertEqual(error.code(), CODES.UNAUTHENTICATED)

    def test_other_paths_and_trust_domains_are_denied(self):
        for uri in (
            "spiffe://other.example/service/auth",
            "spiffe://drystone.local/auth",
            "spiffe://drystone.local/service/auth/x",
            "spiffe://drystone.local/service",
            "spiffe://drystone.local/ns/default/sa/auth",
        ):
            credentials = self.ca.issue("auth", uris=[uri])
            for method in ("ForAny", "ForAuth", "ForUser"):
                self.refused("CALLER_NOT_ALLOWED", None, method, credentials=credentials)
        for name in ("Auth", "auth.", "outside"):
            credentials = self.ca.issue("auth", uris=[f"spiffe://drystone.local/service/{name}"])
            for method in ("ForAuth", "ForUser"):
                self.refused("CALLER_NOT_ALLOWED", None, method, credentials=credentials)

    def test_calls_fail_once_the_certificate_expires_on_an_open_connection(self):
        credentials = self.ca.issue("auth", lifetime=datetime.timedelta(minutes=10))
        stub = self.channel(None, credentials).unary_unary(f"/{SERVICE}/ForAny")
        stub(b"", timeout=10)
        try:
            type(self).clock_offset = 601.0
            with self.assertRaises(grpc.RpcError) as caught:
                stub(b"", timeout=10)
            self.assertEqual(reason_of(caught.exception), "CALLER_EXPIRED")
            # The certificate of the server is valid for an hour.
            long = self.ca.issue("auth", lifetime=datetime.timedelta(hours=9))
            self.call(None, "ForAny", credentials=long)
            type(self).clock_offset = 3601.0
            error = self.refused("UNAVAILABLE", None, "ForAny", credentials=long)
            self.assertEqual(error.code(), CODES.UNAVAILABLE)
        finally:
            type(self).clock_offset = 0.0

    def test_a_renewed_certificate_is_served_to_new_connections(self):
        def served():
            context = ssl.create_default_context(cadata=self.ca.pem.decode())
            certificate, key, _ = self.ca.files(support.scratch() / "raw", "auth")
            context.load_cert_chain(certificate, key)
            with socket.create_connection(self.server.address.split(":")) as raw:
                with context.wrap_socket(raw, server_hostname="things") as connection:
                    return connection.getpeercert(True)

        before = served()
        self.assertEqual(served(), before)
        self.ca.files(Path(self.config.cert).parent, "things")
        self.assertNotEqual(served(), before)

    def test_a_call_over_tls_1_2_is_refused(self):
        certificate, key, _ = self.ca.files(support.scratch() / "raw", "auth")

        def answer(version):
            context = ssl.create_default_context(cadata=self.ca.pem.decode())
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2"])
            context.load_cert_chain(certificate, key)
            with socket.create_connection(self.server.address.split(":"), timeout=10) as raw:
                with context.wrap_socket(raw, server_hostname="things") as connection:
                    connection.sendall(http2_call(f"/{SERVICE}/ForAny"))
                    received = b""
                    while b"grpc-status" not in received and (part := connection.recv(65536)):
                        received += part
                    return received

        served = len(self.things.served)
        self.assertIn(b"does not use TLS 1.3", answer(ssl.TLSVersion.TLSv1_2))
        self.assertEqual(len(self.things.served), served)
        self.assertNotIn(b"does not use TLS 1.3", answer(ssl.TLSVersion.TLSv1_3))
        self.assertEqual(len(self.things.served), served + 1)

    def test_a_resumed_session_has_the_identity_of_its_certificate(self):
        certificate, key, _ = self.ca.files(support.scratch() / "raw", "auth")
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(certificate, key)
        session, callers = None, []
        for _ in range(2):
            with socket.create_connection(self.server.address.split(":"), timeout=10) as raw:
                with context.wrap_socket(raw, server_hostname="things", session=session) as connection:
                    connection.sendall(http2_call(f"/{SERVICE}/ForAny"))
                    received = b""
                    while b"grpc-status" not in received and (part := connection.recv(65536)):
                        received += part
                    session, resumed = connection.session, connection.session_reused
                    callers.append(str(self.things.served[-1].caller))
        self.assertEqual(callers, ["spiffe://drystone.local/service/auth"] * 2)
        self.assertTrue(resumed, "README.md says that sessions are resumed")


def http2_call(path):
    """The bytes of a unary call with an empty message: connection preface, SETTINGS, HEADERS, DATA (RFC 9113)."""

    def frame(kind, flags, stream, content):
        return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content

    headers = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "things", "te": "trailers"}
    headers["content-type"] = "application/grpc"
    # Each as a literal without indexing, with a new name and without Huffman coding (RFC 7541, section 6.2.2).
    block = b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in pair) for pair in headers.items())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return preface + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5))


if __name__ == "__main__":
    unittest.main()
