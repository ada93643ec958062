"""Invalid tokens: attacks on the format, the header, the signature and the claims of a token."""

import base64
import hashlib
import hmac
import json
import uuid

import support
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from support import encode_base64url as encode

ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
OTHER_USER = "01890a5d-ac96-774b-bcce-b302099a8057"


def bad_tokens(signer, claims):
    """Pairs of name and token, from a signer whose key is in the key set, and valid claims."""
    yield from _shapes(signer, claims)
    yield from _headers(signer, claims)
    yield from _signatures(signer, claims)
    yield from _claims(signer, claims)


def _shapes(signer, claims):
    token = signer.sign(claims)
    header, payload, signature = token.split(".")
    none = encode(json.dumps(signer.header(alg="none")).encode())
    yield from {
        "nothing": "",
        "a lone dot": ".",
        "two dots": "..",
        "one segment": payload,
        "two segments": f"{header}.{payload}",
        "four segments": f"{token}.{signature}",
        "four segments, the last one empty": f"{token}.",
        "four segments, the first one empty": f".{token}",
        "five segments": f"{token}.{payload}.{signature}",
        "empty header": f".{payload}.{signature}",
        "empty payload": f"{header}..{signature}",
        "empty signature": f"{header}.{payload}.",
        "alg none and an empty signature": f"{none}.{payload}.",
        "alg none and a signature": f"{none}.{payload}.{signature}",
        "commas instead of dots": token.replace(".", ","),
        "JSON serialisation": json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "oversize": signer.sign(claims | {"filler": "a" * 8192}),
        "a space before": f" {token}",
        "a space after": f"{token} ",
        "a newline after": f"{token}\n",
        "padded signature": f"{header}.{payload}.{signature}==",
        "half padded signature": f"{header}.{payload}.{signature}=",
        "impossible length": f"{header}.{payload}.{signature}AAA",
        "a space in the payload": signer.sign_segments(header, f"{payload[:9]} {payload[9:]}"),
        "percent encoding": signer.sign_segments(header, f"{payload[:9]}%20{payload[9:]}"),
        "not base64": signer.sign_segments(header, json.dumps(claims).replace(".", "-")),
        "stray bits in the signature": f"{header}.{payload}.{_stray(signature)}",
        "not ASCII": f"{header}.{payload}.{signature[:-1]}\u0661",
    }.items()
    for name, text in (("header", json.dumps(signer.header())), ("payload", json.dumps(claims))):
        while len(text) % 3 == 0:
            text += " "
        segments = [header, payload]
        segments[name == "payload"] = _stray(encode(text.encode()))
        yield f"stray bits in the {name}", signer.sign_segments(*segments)
        segments[name == "payload"] = base64.urlsafe_b64encode(text.encode()).decode()
        yield f"padded {name}", signer.sign_segments(*segments)
    special = json.dumps(claims | {"filler": ">>>>>>??????"})
    yield "standard alphabet", signer.sign_segments(header, base64.b64encode(special.encode()).decode().rstrip("="))


def _stray(segment):
    """The same bytes in a non-canonical encoding: an unused bit of the last digit is set."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + digits[digits.index(segment[-1]) | 1]


def _headers(signer, claims):
    kid = signer.kid
    changes = [
        *({"alg": alg} for alg in ("none", "None", "NONE", "HS256", "HS512", "RS256", "PS256", "ES384", "ES512")),
        *({"alg": alg} for alg in ("ES256K", "EdDSA", "Ed25519", "es256", "ES256 ", "", ["ES256"], 256, None)),
        *({"typ": typ} for typ in ("JWT", "jwt", "at+JWT", "at+jwt ", "application/jwt", "dpop+jwt", "", ["at+jwt"], 1)),
        *({"kid": name} for name in ("", "unknown", "../../dev/null", f"{kid} ", f"{kid}\0", "k" * 300, [kid], 1, None)),
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"iss": claims["iss"]},
        {"x5t": "AAAA"},
        {"nonce": "AAAA"},
        {"Alg": "ES256"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://attacker.example/jwks.json"},
        {"x5u": "https://attacker.example/chain.pem"},
        {"x5c": ["MIIB"]},
    ]
    for change in changes:
        yield f"header with {change}"[:80], signer.sign(claims, signer.header(**change))
    for member in ("alg", "typ", "kid"):
        header = signer.header()
        del header[member]
        yield f"header without {member}", signer.sign(claims, header)

    # A key in the header.
    other = support.Signer("embedded")
    jwk = {name: getattr(other.jwk(), name) for name in ("kty", "crv", "x", "y")}
    for header in (signer.header(jwk=jwk), signer.header(jwk=jwk, kid="embedded")):
        yield "an embedded key", other.sign(claims, header)

    # Algorithm confusion: the public key as the secret of an HMAC (RFC 8725, section 2.1).
    public = signer.key.public_key()
    formats = serialization.PublicFormat
    for name, secret in (
        ("PEM", public.public_bytes(serialization.Encoding.PEM, formats.SubjectPublicKeyInfo)),
        ("DER", public.public_bytes(serialization.Encoding.DER, formats.SubjectPublicKeyInfo)),
        ("point", public.public_bytes(serialization.Encoding.X962, formats.UncompressedPoint)),
        ("empty secret", b""),
    ):
        for algorithm, digest in (("HS256", "sha256"), ("HS512", "sha512"), ("ES256", "sha256")):
            signed = ".".join(encode(json.dumps(part).encode()) for part in (signer.header(alg=algorithm), claims))
            tag = hmac.digest(secret, signed.encode(), digest)
            yield f"{algorithm} keyed with the public key as {name}", f"{signed}.{encode(tag)}"

    rest = f'"typ":"at+jwt","kid":"{kid}"'
    valid = json.dumps(signer.header())
    texts = {
        "duplicate alg, none first": f'{{"alg":"none","alg":"ES256",{rest}}}',
        "duplicate alg, none last": f'{{"alg":"ES256",{rest},"alg":"none"}}',
        "duplicate alg, both valid": f'{{"alg":"ES256","alg":"ES256",{rest}}}',
        "duplicate alg, one with an escape sequence": f'{{"alg":"ES256","\\u0061lg":"ES256",{rest}}}',
        "duplicate typ": f'{{"alg":"ES256",{rest},"typ":"at+jwt"}}',
        "duplicate kid": f'{{"alg":"ES256",{rest},"kid":"{kid}"}}',
        "deep nesting": f'{valid[:-1]},"deep":{"[" * 1000}{"]" * 1000}}}',
    } | dict(_texts(valid, list(signer.header().values())))
    for name, text in texts.items():
        yield f"header: {name}", signer.sign(claims, text)


def _texts(valid, values):
    """Malformed variants of a JSON object."""
    yield "an array of the valid values", json.dumps(values)
    yield "an array around the valid object", f"[{valid}]"
    yield "a string", json.dumps(valid)
    yield "null", "null"
    yield "a number", "1"
    yield "an empty object", "{}"
    yield "not JSON", "ES256"
    yield "a truncated object", valid[:-1]
    yield "data after the object", f"{valid}{{}}"
    yield "a NUL after the object", f"{valid}\0"
    yield "a trailing comma", f"{valid[:-1]},}}"
    yield "a comment", f"{valid}/**/"
    yield "a byte order mark", f"\ufeff{valid}"
    yield "UTF-16", valid.encode("utf-16-le")
    yield "single quotes", valid.replace('"', "'")
    for name, content in (
        ("invalid UTF-8", b"\xff"),
        ("an overlong encoding", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("a lone surrogate escape", rb"\ud800"),
        ("a control character", b"\x01"),
    ):
        yield name, valid[:-1].encode() + b',"x":"' + content + b'"}'
        yield f"{name} in a name", valid[:-1].encode() + b',"' + content + b'":1}'


def _signatures(signer, claims):
    header, payload, signature = signer.sign(claims).split(".")
    signed = f"{header}.{payload}".encode()
    valid = signer.sign_bytes(signed)
    r, s, zero, one = valid[:32], valid[32:], bytes(32), (1).to_bytes(32)

    def flipped(at):
        return valid[:at] + bytes([valid[at] ^ 1]) + valid[at + 1 :]

    for name, content in {
        "first bit flipped": flipped(0),
        "middle bit flipped": flipped(32),
        "last bit flipped": flipped(63),
        "as DER": signer.key.sign(signed, ec.ECDSA(hashes.SHA256())),
        "zeros": bytes(64),
        "ones": b"\xff" * 64,
        "r zero": zero + s,
        "s zero": r + zero,
        "r and s 1": one + one,
        "r and s the group's order": ORDER + ORDER,
        "r and s exchanged": s + r,
        "without its last byte": valid[:63],
        "with an extra byte": valid + b"\0",
        "after one byte": b"\0" + valid,
        "twice": valid + valid,
        "r alone": r,
        "a hash": hashlib.sha256(signed).digest(),
        "of the payload alone": signer.sign_bytes(payload.encode()),
        "with another key": support.Signer().sign_bytes(signed),
        "with Ed25519": ed25519.Ed25519PrivateKey.generate().sign(signed),
    }.items():
        yield f"signature: {name}", f"{signed.decode()}.{encode(content)}"

    for change in ({"roles": ["admin"]}, {"perms": ["all:all"]}, {"sub": OTHER_USER}, {"exp": claims["exp"] + 1}):
        changed = encode(json.dumps(claims | change).encode())
        yield f"payload changed to {change}", f"{header}.{changed}.{signature}"
    other_header = encode(json.dumps(signer.header(typ="application/at+jwt")).encode())
    yield "header changed", f"{other_header}.{payload}.{signature}"


def _claims(signer, claims):
    iat, exp = claims["iat"], claims["exp"]
    issuer, audience = claims["iss"], claims["aud"]
    biggest = 2**63 - 1
    changes = [{name: None} for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp", "auth_time", "nbf")]
    changes += [
        {"exp": value}
        for value in (iat, iat - 1, 0, -1, -exp, iat + 2 * 86400, exp * 1000, biggest, -biggest - 1, 2**64 - 1, 10**40)
    ]
    changes += [{"iat": value} for value in (-biggest - 1, biggest, 0, iat * 1000, -iat)]
    changes += [
        {"iat": -biggest - 1, "exp": biggest},
        {"iat": biggest, "exp": -biggest - 1},
        {"nbf": iat + 3600},
        {"nbf": biggest},
        {"auth_time": iat + 3600},
        {"auth_time": -1},
    ]
    for name in ("exp", "iat", "nbf", "auth_time"):
        number = claims.get(name, iat)
        changes += [{name: value} for value in (str(number), number + 0.5, float(number), True, [number], {"s": number}, "")]
    changes += [
        {"iss": value}
        for value in ("https://evil.example", f"{issuer}/", f"{issuer}.evil", f" {issuer}", issuer.upper(), "", [issuer])
    ]
    changes += [
        {"aud": value}
        for value in ("else", f"{audience} ", audience.upper(), f"{audience},else", "", "*", [audience], ["else", audience])
    ]
    for name in ("sub", "sid", "jti"):
        given = claims[name]
        changes += [
            {name: value}
            for value in ("", " ", "admin", str(uuid.UUID(int=0)), given.upper(), given.replace("-", ""), f"{{{given}}}")
        ]
        changes += [{name: value} for value in (f"urn:uuid:{given}", f"{given} ", f"{given}\n", given[:35], 1, [given])]
    changes += [
        {"jti": "0b7d1f4e-6c0a-4a7e-9f53-3d5a8f5b2c11"},
        {"jti": support.uuid7(iat + 600)},
        {"jti": support.uuid7(iat - 600)},
    ]
    for name in ("amr", "roles", "perms"):
        changes += [{name: value} for value in ("admin", None, [1], [None], [["admin"]], {"admin": True}, True)]
    changes += [{"props": value} for value in ("owner", None, ["owner"], {"p": 1}, {"p": ["owner"]}, {"p": None})]
    for change in changes:
        yield f"claims with {change}"[:80], signer.sign(claims | change)
    for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp", "auth_time"):
        yield f"claims without {name}", signer.sign({key: value for key, value in claims.items() if key != name})
    for name, by in (("expired a minute ago", -(exp - iat) - 60), ("valid in one minute", 60), ("valid in two hours", 7200)):
        moved = {key: claims[key] + by for key in ("iat", "exp", "auth_time")}
        yield name, signer.sign(claims | moved | {"jti": support.uuid7(iat + by)})

    valid = json.dumps(claims)
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in claims.items()]
    members += ['"exp":9999999999', f'"sub":"{OTHER_USER}"', '"roles":["admin"]', f'"\\u0073ub":"{OTHER_USER}"']
    members += ['"x":1,"x":1', '"x":{"a":1,"a":2}', '"x":[{"a":1,"a":2}]']
    for member in members:
        yield f"claims with duplicate {member}"[:80], signer.sign(f"{{{member},{valid[1:]}")
    without_exp = json.dumps({key: value for key, value in claims.items() if key != "exp"})
    for number in ("1e400", "2e9", "-0", "0x7fffffff", "01", "NaN", "Infinity", "9" * 5000):
        yield f"exp of {number}"[:40], signer.sign(f'{{"exp":{number},{without_exp[1:]}')
        if not number.isdigit() and number not in ("2e9", "-0"):
            yield f"an unknown claim of {number}", signer.sign(f'{{"x":{number},{valid[1:]}')
    without_auth_time = json.dumps({key: value for key, value in claims.items() if key != "auth_time"})
    yield "auth_time of -0", signer.sign(f'{{"auth_time":-0,{without_auth_time[1:]}')
    for name, text in _texts(valid, list(claims.values())):
        yield f"payload: {name}", signer.sign(text)
    yield "payload: another token", signer.sign(signer.sign(claims))
    for name, value in (
        ("nine levels of lists", "[" * 8 + "]" * 8),
        ("deep lists", "[" * 1000 + "]" * 1000),
        ("deep objects", '{"a":' * 500 + "1" + "}" * 500),
        ("deep nesting, not closed", "[" * 3000),
    ):
        yield f"payload: {name}", signer.sign(f'{{"x":{value},{valid[1:]}')
