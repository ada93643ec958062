"""Validates tokens, key set and metadata with authlib, joserfc and PyJWT.

usage: tokens.py REST-URL [ALGORITHM]

Needs only what a resource server outside the mesh has: the REST address and the audience of the tokens.
"""

import base64
import json
import os
import sys
import time
import urllib.request
import uuid

# The tests use plain HTTP over loopback; authlib requires https otherwise.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt as pyjwt
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt as jose
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

AUDIENCE = "drystone"
CLIENT_ID = "drystone"
# RFC 9068, section 2.2.
REQUIRED = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response), response.headers


def refused(validate, *errors):
    try:
        accepted = validate()
    except errors:
        return
    raise AssertionError(f"accepted: {accepted}")


def tampered(token, **claims):
    """The token with changed claims and its original signature."""
    header, payload, signature = token.split(".")
    payload = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    payload = json.dumps({**payload, **claims}).encode()
    return ".".join([header, base64.urlsafe_b64encode(payload).decode().rstrip("="), signature])


def check_metadata(rest):
    """RFC 8414: fetched from the well-known URL of the issuer; each member is validated by authlib."""
    document, headers = call("GET", f"{rest}/.well-known/oauth-authorization-server")
    assert headers.get_content_type() == "application/json", headers
    metadata = AuthorizationServerMetadata(document)
    # Section 3.3: the issuer must match the URL of the document.
    assert get_well_known_url(metadata["issuer"]) == "/.well-known/oauth-authorization-server", metadata
    unknown = set(metadata) - set(AuthorizationServerMetadata.REGISTRY_KEYS)
    assert not unknown, f"members that are not in RFC 8414: {unknown}"
    for member, value in metadata.items():
        assert value not in (None, "", [], {}), f"{member} is empty, but section 3.2 requires it to be omitted"
        getattr(metadata, f"validate_{member}")()
    # Two members that section 2 requires are absent, since neither exists yet: response_types_supported (there is no
    # authorization endpoint, and section 3.2 forbids an empty array) and token_endpoint (there are no OAuth grants).
    for member in ("response_types_supported", "token_endpoint", "authorization_endpoint"):
        assert member not in metadata, f"{member} is present: validate the whole document"
    openid, _ = call("GET", f"{rest}/.well-known/openid-configuration")
    assert openid == document, openid
    return metadata


def check_with_pyjwt(token, keys, issuer):
    key = pyjwt.PyJWKSet.from_dict(keys)[pyjwt.get_unverified_header(token)["kid"]]
    assert pyjwt.get_unverified_header(token)["typ"] == "at+jwt"

    def decode(token, audience=AUDIENCE):
        options = {"require": REQUIRED}
        return pyjwt.decode(token, key, algorithms=[key.algorithm_name], audience=audience, issuer=issuer, options=options)

    claims = decode(token)
    refused(lambda: decode(token, "another"), pyjwt.InvalidAudienceError)
    refused(lambda: decode(tampered(token, sub=str(uuid.uuid4()))), pyjwt.InvalidSignatureError)
    return claims


def check_with_joserfc(token, keys, issuer):
    algorithm = pyjwt.get_unverified_header(token)["alg"]
    keys = KeySet.import_key_set(keys)

    def decode(token, now=None):
        decoded = jose.decode(token, keys, algorithms=[algorithm])
        assert decoded.header["typ"] == "at+jwt", decoded.header
        options = {name: {"essential": True} for name in REQUIRED}
        options["iss"]["value"], options["aud"]["value"] = issuer, AUDIENCE
        jose.JWTClaimsRegistry(now, **options).validate(decoded.claims)
        return decoded.claims

    claims = decode(token)
    refused(lambda: decode(token, int(time.time()) + 3600), JoseError)
    refused(lambda: decode(tampered(token, aud="another")), JoseError)
    return claims


def check_with_authlib(token, keys, issuer):
    """RFC 9068, section 4, with each claim of section 2.2 and the formats of auth_time and amr."""

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return KeySet.import_key_set(keys)

    def validate(validator, token, **wanted):
        claims = validator.authenticate_token(token)
        validator.validate_token(claims, [], None, **wanted)
        return claims

    validator = Validator(issuer, AUDIENCE)
    claims = validate(validator, token)
    # Section 2.2.3.1: the claim of the roles.
    validate(validator, token, roles=["member"])
    refused(lambda: validate(validator, token, roles=["admin"]), InvalidTokenError)
    refused(lambda: validate(Validator(issuer, "another"), token), InvalidTokenError)
    refused(lambda: validate(Validator("https://another.example", AUDIENCE), token), InvalidTokenError)
    refused(lambda: validate(validator, tampered(token, roles=["admin"])), InvalidTokenError)
    return claims


def main():
    rest = sys.argv[1].rstrip("/")
    email, password = f"python.{uuid.uuid4().hex}@example.com", "correct horse"
    call("POST", f"{rest}/v1/auth/register", {"email": email, "password": password, "displayName": "Guido"})
    tokens, _ = call("POST", f"{rest}/v1/auth/login", {"email": email, "password": password})

    metadata = check_metadata(rest)
    keys, _ = call("GET", metadata["jwks_uri"])
    for key in keys["keys"]:
        assert all(value not in (None, "", []) for value in key.values()), f"an empty member: {key}"
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key), "a private key is published"

    algorithm = sys.argv[2] if len(sys.argv) > 2 else "ES256"
    assert pyjwt.get_unverified_header(tokens["accessToken"])["alg"] == algorithm
    assert [key["alg"] for key in keys["keys"]] == [algorithm], keys
    checks = [check_with_pyjwt, check_with_joserfc]
    # authlib lets joserfc choose the algorithms, whose choice lacks EdDSA (RFC 8037), which RFC 9864 renames.
    if algorithm != "EdDSA":
        checks.append(check_with_authlib)
    for check in checks:
        claims = check(tokens["accessToken"], keys, metadata["issuer"])
        assert claims["sub"] == tokens["userId"] and claims["sid"] == tokens["sessionId"], claims
        assert claims["client_id"] == CLIENT_ID, claims
        assert claims["amr"] == ["pwd"] and abs(claims["auth_time"] - time.time()) < 60, claims
    print("all checks passed")


if __name__ == "__main__":
    main()
