"""Access tokens: valid ones, and every invalid one of `bad_tokens`."""

import unittest

import support
from bad_tokens import bad_tokens
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from support import encode_base64url as encode

from drystone_mesh.access import bearer_token
from drystone_mesh.errors import Failure
from drystone_mesh.keys import KeyFault, KeySet, PublicKey, decode_base64url
from drystone_mesh.revocations import RevocationView
from drystone_mesh.tokens import NotReady, TokenError, TokenExpired, TokenRevoked, Verifier

NOW = 1_900_000_000.0


class Clock:
    def __init__(self, at=NOW):
        self.at = at

    def __call__(self):
        return self.at


def verifier(*jwks, clock=None, received=True):
    keys, view = KeySet(), RevocationView(clock or Clock())
    keys.replace(PublicKey.from_jwk(jwk) for jwk in jwks)
    if received:
        view.apply([])
    return Verifier(support.ISSUER, support.AUDIENCE, keys, view, clock or Clock())


class VerifierTest(unittest.TestCase):
    def setUp(self):
        self.signer = support.Signer()
        self.clock = Clock()
        self.verifier = verifier(self.signer.jwk(), clock=self.clock)

    def test_a_valid_token_proves_its_user(self):
        claims = support.claims(NOW, perms=["a:b"], props={"p": "owner"}, client_id="first-party")
        principal = self.verifier.verify(self.signer.sign(claims))
        self.assertEqual(str(principal.user_id), claims["sub"])
        self.assertEqual(str(principal.session_id), claims["sid"])
        self.assertEqual(principal.permissions, {"a:b"})
        self.assertEqual(principal.properties, {"p": "owner"})
        self.assertEqual(principal.issued_at.timestamp(), NOW)
        for typ in ("at+jwt", "application/at+jwt"):
            self.verifier.verify(self.signer.sign(claims, self.signer.header(typ=typ)))
        for optional in ("amr", "roles", "perms", "props"):
            self.verifier.verify(self.signer.sign({key: value for key, value in claims.items() if key != optional}))

    def test_the_tokens_of_a_withdrawn_key_are_revoked_and_its_successor_is_waited_for(self):
        token = self.signer.sign(support.claims(NOW))
        self.verifier.verify(token)
        successor = support.Signer(kid="successor").sign(support.claims(NOW))
        with self.assertRaises(TokenError) as caught:
            self.verifier.verify(successor)
        self.assertEqual(caught.exception.reason, "TOKEN_INVALID")
        revocation = support.platform().get("drystone.session.v1.Revocation")(key_id=self.signer.jwk().kid)
        self.verifier.revocations.apply([revocation])
        self.assertRaises(TokenRevoked, self.verifier.verify, token)
        self.assertRaises(NotReady, self.verifier.verify, successor)

    def test_every_bad_token_is_refused(self):
        names = set()
        for name, token in bad_tokens(self.signer, support.claims(NOW)):
            names.add(name)
            with self.subTest(name):
                try:
                    self.verifier.verify(token)
                except TokenError as error:
                    self.assertIn(error.reason, ("TOKEN_INVALID", "TOKEN_EXPIRED"))
                    self.assertNotIn(token or "\0", f"{error} {error.to_failure().message}")
                else:
                    self.fail("the token is accepted")
        self.assertGreater(len(names), 250)

    def test_times_have_a_leeway_of_five_seconds(self):
        token = self.signer.token(NOW)
        for at in (NOW - 5, NOW, NOW + 304.9):
            self.clock.at = at
            self.verifier.verify(token)
        self.clock.at = NOW - 5.1
        self.assertRaises(TokenError, self.verifier.verify, token)
        self.clock.at = NOW + 305
        self.assertRaises(TokenExpired, self.verifier.verify, token)

    def test_the_maximum_lifetime_is_one_hour(self):
        self.verifier.verify(self.signer.token(NOW, exp=int(NOW) + 3600))
        self.assertRaises(TokenError, self.verifier.verify, self.signer.token(NOW, exp=int(NOW) + 3601))

    def test_eight_levels_of_json_are_accepted(self):
        nested = []
        for _ in range(6):
            nested = [nested]
        self.verifier.verify(self.signer.token(NOW, x=nested))
        self.assertRaises(TokenError, self.verifier.verify, self.signer.token(NOW, x=[nested]))

    def test_a_revoked_token_is_refused(self):
        claims = support.claims(NOW)
        token = self.signer.sign(claims)
        self.verifier.verify(token)
        revocation = support.platform().get("drystone.session.v1.Revocation")
        self.verifier.revocations.apply([revocation(session_id=claims["sid"])])
        self.assertRaises(TokenRevoked, self.verifier.verify, token)

    def test_no_token_is_verified_before_keys_and_revocations_are_received(self):
        token = self.signer.token(NOW)
        self.assertRaises(NotReady, verifier(self.signer.jwk(), received=False).verify, token)
        empty = verifier()
        self.assertRaises(NotReady, empty.verify, token)
        self.assertEqual(NotReady("x").to_failure().code.name, "UNAVAILABLE")

    def test_an_unknown_kid_triggers_a_key_fetch(self):
        self.assertRaises(TokenError, self.verifier.verify, support.Signer("new").token(NOW))
        self.assertTrue(self.verifier.keys._wanted.is_set())

    def test_each_algorithm_is_verified_with_its_own_key_alone(self):
        jwk = support.platform().get("drystone.auth.v1.Jwk")
        ed, rs = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
        numbers = rs.public_key().public_numbers()
        jwks = [
            jwk(kty="OKP", use="sig", alg="EdDSA", kid="ed", crv="Ed25519", x=encode(ed.public_key().public_bytes_raw())),
            jwk(kty="RSA", use="sig", alg="RS256", kid="rs", n=encode(numbers.n.to_bytes(256)), e="AQAB"),
        ]
        both = verifier(*jwks, self.signer.jwk())

        def token(kid, alg, sign):
            parts = {"alg": alg, "typ": "at+jwt", "kid": kid}, support.claims(NOW)
            signed = ".".join(encode(support.as_bytes(part)) for part in parts)
            return f"{signed}.{encode(sign(signed.encode()))}"

        signs = {
            "EdDSA": ed.sign,
            "RS256": lambda message: rs.sign(message, padding.PKCS1v15(), hashes.SHA256()),
            "ES256": self.signer.sign_bytes,
        }
        own = {"ed": "EdDSA", "rs": "RS256", "key-1": "ES256"}
        for kid in own:
            for alg in own.values():
                for used, sign in signs.items():
                    with self.subTest(f"{kid} {alg} {used}"):
                        if own[kid] == alg == used:
                            both.verify(token(kid, alg, sign))
                        else:
                            self.assertRaises(TokenError, both.verify, token(kid, alg, sign))
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        self.assertRaises(TokenError, both.verify, token("rs", "RS256", lambda m: rs.sign(m, pss, hashes.SHA256())))


class KeyTest(unittest.TestCase):
    def test_only_canonical_base64url_is_decoded(self):
        self.assertEqual(decode_base64url("-_8"), b"\xfb\xff")
        for text in ("-_9", "-_8=", "+/8", "-_8 ", " -_8", "-_\n8", "-_8-_", "A", "\u0661_8"):
            with self.subTest(text), self.assertRaises(ValueError):
                decode_base64url(text)

    def test_an_unusable_jwk_is_refused(self):
        good = support.Signer().jwk()
        PublicKey.from_jwk(good)
        for change in (
            {"kid": ""},
            {"kid": "k" * 257},
            {"use": "enc"},
            {"use": ""},
            {"alg": "HS256"},
            {"alg": "EdDSA"},
            {"kty": "oct"},
            {"crv": "P-384"},
            {"x": good.x + "="},
            {"x": good.x[:-1]},
            {"y": ""},
            {"y": good.x},
        ):
            jwk = type(good)()
            jwk.CopyFrom(good)
            for name, value in change.items():
                setattr(jwk, name, value)
            with self.subTest(change), self.assertRaises(KeyFault):
                PublicKey.from_jwk(jwk)

    def test_a_short_rsa_key_is_refused(self):
        numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
        jwk = support.platform().get("drystone.auth.v1.Jwk")
        with self.assertRaises(KeyFault):
            PublicKey.from_jwk(jwk(kty="RSA", use="sig", alg="RS256", kid="rs", n=encode(numbers.n.to_bytes(128)), e="AQAB"))

    def test_an_rsa_key_has_4096_bits_at_most_no_leading_zero_and_one_exponent(self):
        jwk = support.platform().get("drystone.auth.v1.Jwk")

        def key(n, e="AQAB"):
            return PublicKey.from_jwk(jwk(kty="RSA", use="sig", alg="RS256", kid="rs", n=encode(n), e=e))

        modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256)
        key(modulus)
        for n, e in ((b"\0" + modulus, "AQAB"), (modulus, "Aw"), (modulus, "AAEAAQ"), (b"\xff" * 513, "AQAB")):
            self.assertRaises(KeyFault, key, n, e)

    def test_of_two_keys_with_the_same_kid_the_first_is_used(self):
        first, second = (PublicKey.from_jwk(support.Signer("one").jwk()) for _ in range(2))
        keys = KeySet()
        keys.replace([first, second])
        self.assertIs(keys.get("one"), first)


class BearerTest(unittest.TestCase):
    def test_the_scheme_has_any_case_and_one_or_more_spaces(self):
        for value in ("Bearer abc", "bearer abc", "BEARER   abc"):
            self.assertEqual(bearer_token([("authorization", value)]), (value, "abc"))

    def test_anything_else_is_refused(self):
        for values, reason in (
            ([], "TOKEN_MISSING"),
            (["Basic abc"], "TOKEN_INVALID"),
            (["abc"], "TOKEN_INVALID"),
            (["Bearer"], "TOKEN_INVALID"),
            (["Bearer\tabc"], "TOKEN_INVALID"),
            (["Bearer abc", "Bearer abc"], "TOKEN_INVALID"),
        ):
            with self.subTest(values), self.assertRaises(Failure) as caught:
                bearer_token([("authorization", value) for value in values])
            self.assertEqual(caught.exception.reason, reason)


if __name__ == "__main__":
    unittest.main()
