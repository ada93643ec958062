"""SPIFFE IDs, the certificate profile, and the reload of certificate files."""

import datetime
import os
import unittest
from pathlib import Path

import support
from cryptography.x509.oid import ExtendedKeyUsageOID

from drystone_mesh.identity import Identity, IdentityError, SpiffeId, peer_svid, svid_of_pem

CA = support.Authority()


class SpiffeIdTest(unittest.TestCase):
    def test_an_id_has_a_trust_domain_a_path_and_a_workload(self):
        identity = SpiffeId.parse("spiffe://drystone.local/service/orders")
        self.assertEqual((identity.trust_domain, identity.workload), ("drystone.local", "orders"))
        self.assertEqual(str(identity), "spiffe://drystone.local/service/orders")

    def test_only_service_paths_name_a_workload(self):
        for path in ("service", "service/auth/two", "Service/auth", "ns/default/sa/auth"):
            self.assertIsNone(SpiffeId.parse(f"spiffe://drystone.local/{path}").workload, path)

    def test_invalid_spiffe_ids_are_refused(self):
        for text in (
            "",
            "https://drystone.local/service/auth",
            "SPIFFE://drystone.local/service/auth",
            "spiffe:/drystone.local/service/auth",
            "spiffe://",
            "spiffe:///service/auth",
            "spiffe://drystone.local",
            "spiffe://drystone.local/",
            "spiffe://Drystone.local/service/auth",
            "spiffe://drystone.local:443/service/auth",
            "spiffe://user@drystone.local/service/auth",
            "spiffe://drystone.local/service/auth/",
            "spiffe://drystone.local//auth",
            "spiffe://drystone.local/./auth",
            "spiffe://drystone.local/service/../auth",
            "spiffe://drystone.local/service/%61uth",
            "spiffe://drystone.local/service/auth?x=y",
            "spiffe://drystone.local/service/auth#x",
            "spiffe://drystone.local/service/auth\n",
            "spiffe://drystone.local\n/service/auth",
            "spiffe://drystone.local/service/auth\0",
            f"spiffe://{'d' * 256}/a",
            f"spiffe://d/{'p' * 2048}",
        ):
            with self.subTest(text), self.assertRaises(IdentityError):
                SpiffeId.parse(text)


class ProfileTest(unittest.TestCase):
    def check(self, **options):
        return svid_of_pem(CA.issue("auth", **options)[0])

    def test_a_valid_certificate_is_an_svid(self):
        svid = self.check()
        self.assertEqual(str(svid.id), "spiffe://drystone.local/service/auth")
        at = svid.not_after.timestamp()
        self.assertTrue(svid.is_valid_at(at - 1e-3) and not svid.is_valid_at(at))
        self.assertFalse(svid.is_valid_at(svid.not_before.timestamp() - 1))

    def test_exactly_one_uri_is_required(self):
        one = "spiffe://drystone.local/service/auth"
        for uris in (
            [],
            [one, one],
            [one, "https://drystone.local"],
            ["https://drystone.local"],
            ["spiffe://drystone.local"],
        ):
            with self.subTest(uris), self.assertRaises(IdentityError):
                self.check(uris=uris)

    def test_key_usage_must_allow_signatures_and_no_ca_use(self):
        usage = support.key_usage
        for options in (
            {"usage": False},
            {"usage_critical": False},
            {"usage": usage(key_agreement=True)},
            {"usage": usage(digital_signature=True, key_cert_sign=True)},
            {"usage": usage(digital_signature=True, crl_sign=True)},
            {"ca": True},
        ):
            with self.subTest(options), self.assertRaises(IdentityError):
                self.check(**options)
        self.assertTrue(self.check(usage=usage(digital_signature=True, key_encipherment=True)))

    def test_extended_key_usage_is_optional_and_must_include_server_and_client(self):
        oid = ExtendedKeyUsageOID
        self.assertTrue(self.check(extended=()))
        for extended in ((oid.CLIENT_AUTH,), (oid.SERVER_AUTH,), (oid.ANY_EXTENDED_KEY_USAGE,)):
            with self.subTest(extended), self.assertRaises(IdentityError):
                self.check(extended=extended)

    def test_anything_but_one_svid_is_refused(self):
        for certificates in ([], [b"x"], [CA.pem], [CA.issue("auth")[0]] * 2):
            with self.assertRaises(IdentityError):
                peer_svid({"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": certificates})

    def test_tls_versions_other_than_1_3_are_refused(self):
        certificates = {"x509_pem_cert": [CA.issue("auth")[0]]}
        self.assertEqual(peer_svid(certificates | {"ssl_tls_version": [b"TLSv1.3"]}).id.workload, "auth")
        for versions in ({}, {"ssl_tls_version": []}, {"ssl_tls_version": [b"TLSv1.2"]}):
            with self.assertRaisesRegex(IdentityError, "TLS 1.3"):
                peer_svid(certificates | versions)


class IdentityTest(unittest.TestCase):
    def setUp(self):
        self.directory = support.scratch() / self.id()
        self.files = CA.files(self.directory, "things")

    def identity(self):
        return Identity(*self.files, "things", support.DOMAIN)

    def replace(self, index, content):
        path = Path(self.files[index])
        before = path.stat().st_mtime_ns
        path.write_bytes(content)
        os.utime(path, ns=(before + 1_000_000, before + 1_000_000))

    def test_changed_files_are_reloaded_once_they_match(self):
        identity = self.identity()
        first = identity.current()
        self.assertIs(identity.current(), first)
        certificate, key = CA.issue("things", lifetime=datetime.timedelta(hours=2))
        self.replace(1, key)
        self.assertIs(identity.current(), first)
        self.replace(0, certificate)
        self.assertEqual(identity.current().certificate, certificate)

    def test_unusable_files_leave_the_previous_ones_in_use(self):
        identity = self.identity()
        first = identity.current()
        self.replace(0, b"x")
        self.assertIs(identity.current(), first)
        Path(self.files[0]).unlink()
        self.assertIs(identity.current(), first)

    def test_a_certificate_of_another_workload_or_key_is_an_error(self):
        with self.assertRaisesRegex(IdentityError, "not of"):
            Identity(*self.files, "auth", support.DOMAIN)
        with self.assertRaisesRegex(IdentityError, "not of"):
            Identity(*self.files, "things", "other.example")
        self.replace(1, CA.issue("things")[1])
        with self.assertRaisesRegex(IdentityError, "do not match"):
            self.identity()


if __name__ == "__main__":
    unittest.main()
