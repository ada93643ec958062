"""A software authenticator for WebAuthn level 3, made of fido2's data classes.

usage: authenticator.py [--store FILE]

Reads one JSON object a line from stdin and answers each with one line. Binary values are base64url without padding.

    {"do": "create", "origin": "https://…", "options": PublicKeyCredentialCreationOptionsJSON}
    {"do": "get", "origin": "https://…", "options": PublicKeyCredentialRequestOptionsJSON}

The answer is {"credential": …}, a RegistrationResponseJSON or an AuthenticationResponseJSON, or {"error": "…"}. Unlike
a browser it signs for any origin, so that a test can play a page of another one.

Of both commands, each optional field changes one thing and leaves the rest valid, signature included:

    rp_id            the relying party whose hash is in the authenticator data
    challenge, type  other values in the client data
    cross_origin     crossOrigin of the client data; top_origin: its topOrigin
    client_data      further members of the client data
    user_present, user_verified, backup_eligible, backed_up
                     the flags; get repeats the backup flags of create unless told otherwise
    counter          the signature counter; without it 0 in create, one more in each get
    credential_id    the id that the response claims (in create: that the credential has)
    flip_signature   true: one bit of the signature is changed (in create: of a packed attestation)
    extra            bytes after the authenticator data
    extensions       the client extension results
    authenticator_extensions
                     extension outputs in the authenticator data, as a CBOR map
    foreign          true: signs with a new key, which no server knows

Of create only:

    algorithm        -7, -8, -35 or -257; without it the first of the options that is one of these
    attestation      "none", "packed-self", or "packed-self-wrong" (signed with another key)
    key              a malformed public key, see `malformed_key`
    small_cbor_faults
                     a malformed attestation object, see `malformed_object`
    ignore_exclude   true: creates a credential although excludeCredentials has one of this authenticator

Of get only:

    select           the id of the credential that signs, whatever allowCredentials has; without it the newest that matches
    user_handle      another user handle; null: none
"""

import argparse
import json
import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from fido2 import cbor
from fido2.cose import CoseKey
from fido2.utils import sha256, websafe_decode, websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialRequestOptions,
)

FLAG = AuthenticatorData.FLAG
AAGUID = Aaguid.parse("6472e0ae-7c1b-4f0c-9d37-5f5b1d0c8a11")
COMMON = {
    "do", "origin", "options", "rp_id", "challenge", "type", "cross_origin", "top_origin", "client_data", "user_present",
    "user_verified", "backup_eligible", "backed_up", "counter", "credential_id", "flip_signature", "extra", "extensions",
    "authenticator_extensions", "foreign",
}  # fmt: skip
FIELDS = {
    "create": COMMON | {"algorithm", "attestation", "key", "small_cbor_faults", "ignore_exclude"},
    "get": COMMON | {"select", "user_handle"},
}


class Refused(Exception):
    """The request cannot be answered; the text says why."""


def generate_key(algorithm, bits=2048):
    match algorithm:
        case -7:
            return ec.generate_private_key(ec.SECP256R1())
        case -8:
            return ed25519.Ed25519PrivateKey.generate()
        case -35:
            return ec.generate_private_key(ec.SECP384R1())
        case -257:
            return rsa.generate_private_key(65537, bits)
    raise Refused(f"unsupported algorithm {algorithm}")


def sign(key, algorithm, data):
    match algorithm:
        case -7:
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        case -8:
            return key.sign(data)
        case -35:
            return key.sign(data, ec.ECDSA(hashes.SHA384()))
        case -257:
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    raise Refused(f"unsupported algorithm {algorithm}")


def flipped(signature):
    """In the last byte, so that the DER of an ECDSA signature stays well-formed."""
    return signature[:-1] + bytes([signature[-1] ^ 1])


class Credential:
    """A discoverable credential with its private key."""

    def __init__(self, id, algorithm, key, rp_id, user_id, counter=0, backup_eligible=False, backed_up=False):
        self.id, self.algorithm, self.key = id, algorithm, key
        self.rp_id, self.user_id, self.counter = rp_id, user_id, counter
        self.backup_eligible, self.backed_up = backup_eligible, backed_up

    def public_key(self):
        return CoseKey.for_alg(self.algorithm).from_cryptography_key(self.key.public_key())

    def to_json(self):
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {**vars(self), "id": websafe_encode(self.id), "user_id": websafe_encode(self.user_id), "key": pem.decode()}

    @classmethod
    def from_json(cls, value):
        # Some tests store keys that are too small on purpose.
        key = serialization.load_pem_private_key(value["key"].encode(), None, unsafe_skip_rsa_key_validation=True)
        return cls(**{**value, "id": websafe_decode(value["id"]), "user_id": websafe_decode(value["user_id"]), "key": key})


class Authenticator:
    def __init__(self, store=None):
        self.store = store
        self.credentials = []
        if store and store.exists():
            self.credentials = [Credential.from_json(value) for value in json.loads(store.read_text())]

    def save(self):
        if self.store:
            self.store.write_text(json.dumps([credential.to_json() for credential in self.credentials]))

    def create(self, request):
        options = PublicKeyCredentialCreationOptions.from_dict(request["options"])
        rp_id = options.rp.id or rp_id_of(request["origin"])
        known = {credential.id for credential in self.credentials if credential.rp_id == rp_id}
        excluded = {descriptor.id for descriptor in options.exclude_credentials or []}
        if known & excluded and not request.get("ignore_exclude"):
            raise Refused("InvalidStateError: a credential of excludeCredentials is on this authenticator")
        offered = [parameters.alg for parameters in options.pub_key_cred_params if parameters.alg in (-7, -8, -35, -257)]
        if "algorithm" not in request and not offered:
            raise Refused("NotSupportedError: no algorithm of pubKeyCredParams is supported")
        algorithm = request["algorithm"] if "algorithm" in request else offered[0]

        credential = Credential(
            websafe_decode(request["credential_id"]) if "credential_id" in request else os.urandom(32),
            algorithm,
            generate_key(algorithm, 1024 if request.get("key") == "small_rsa" else 2048),
            rp_id,
            options.user.id,
            request.get("counter", 0),
            request.get("backup_eligible", False),
            request.get("backed_up", False),
        )
        public_key = malformed_key(request.get("key"), credential)
        # Browsers keep the AAGUID when they strip the attestation.
        attested = AttestedCredentialData.create(AAGUID, credential.id, public_key)
        auth_data = authenticator_data(request, credential, credential.counter, attested)
        client_data = collected_client_data(request, CollectedClientData.TYPE.CREATE, options.challenge)
        statement = attestation_statement(request, credential, auth_data + client_data.hash)
        attestation_bytes = attestation_object(request, statement, auth_data)

        # A credential with the id of another replaces it, as on a device that reuses ids.
        self.credentials = [other for other in self.credentials if other.id != credential.id] + [credential]
        self.save()
        credential_properties = {"credProps": {"rk": True}} if (options.extensions or {}).get("credProps") else {}
        response = {
            "clientDataJSON": client_data.b64,
            "attestationObject": websafe_encode(attestation_bytes),
            "authenticatorData": websafe_encode(auth_data),
            "transports": ["internal"],
            "publicKeyAlgorithm": algorithm,
            "publicKey": websafe_encode(
                credential.key.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            ),
        }
        return public_key_credential(credential.id, response, request.get("extensions", credential_properties))

    def get(self, request):
        options = PublicKeyCredentialRequestOptions.from_dict(request["options"])
        rp_id = options.rp_id or rp_id_of(request["origin"])
        credential = self.choose(request, options, rp_id)
        counter = request.get("counter", credential.counter + 1)
        credential.counter = max(credential.counter, counter)
        auth_data = authenticator_data(request, credential, counter)
        client_data = collected_client_data(request, CollectedClientData.TYPE.GET, options.challenge)
        key = generate_key(credential.algorithm) if request.get("foreign") else credential.key
        signature = sign(key, credential.algorithm, auth_data + client_data.hash)
        self.save()

        response = {
            "clientDataJSON": client_data.b64,
            "authenticatorData": websafe_encode(auth_data),
            "signature": websafe_encode(flipped(signature) if request.get("flip_signature") else signature),
        }
        user_handle = request.get("user_handle", websafe_encode(credential.user_id))
        if user_handle is not None:
            response["userHandle"] = user_handle
        claimed_id = websafe_decode(request["credential_id"]) if "credential_id" in request else credential.id
        return public_key_credential(claimed_id, response, request.get("extensions", {}))

    def choose(self, request, options, rp_id):
        matching = [credential for credential in self.credentials if credential.rp_id == rp_id]
        if "select" in request:
            matching = [credential for credential in self.credentials if credential.id == websafe_decode(request["select"])]
        elif options.allow_credentials:
            allowed = {descriptor.id for descriptor in options.allow_credentials}
            matching = [credential for credential in matching if credential.id in allowed]
        if matching:
            return matching[-1]
        if request.get("foreign"):
            # Nothing is registered here: a credential that no server can know.
            return Credential(os.urandom(32), -7, generate_key(-7), rp_id, os.urandom(16))
        raise Refused(f"NotAllowedError: no credential of {rp_id} matches")


def rp_id_of(origin):
    return origin.split("://", 1)[1].split("/", 1)[0].rsplit(":", 1)[0]


def authenticator_data(request, credential, counter, attested=b""):
    extensions = request.get("authenticator_extensions")
    flags = FLAG(0)
    for flag, is_set in (
        (FLAG.UP, request.get("user_present", True)),
        (FLAG.UV, request.get("user_verified", True)),
        (FLAG.BE, request.get("backup_eligible", credential.backup_eligible)),
        (FLAG.BS, request.get("backed_up", credential.backed_up)),
        (FLAG.AT, attested),
        (FLAG.ED, extensions is not None),
    ):
        if is_set:
            flags |= flag
    rp_id_hash = sha256(request.get("rp_id", credential.rp_id).encode())
    data = AuthenticatorData.create(rp_id_hash, flags, counter, attested, extensions)
    return bytes(data) + websafe_decode(request.get("extra", ""))


def collected_client_data(request, type, challenge):
    challenge = websafe_decode(request["challenge"]) if "challenge" in request else challenge
    members = {"topOrigin": request["top_origin"]} if "top_origin" in request else {}
    members |= request.get("client_data", {})
    type = request.get("type", type.value)
    return CollectedClientData.create(type, challenge, request["origin"], request.get("cross_origin", False), **members)


def attestation_statement(request, credential, signed):
    attestation = request.get("attestation", "none")
    match attestation:
        case "none":
            if request.get("flip_signature") or request.get("foreign"):
                raise Refused("an attestation of kind none has no signature")
            return {}
        case "packed-self" | "packed-self-wrong":
            wrong = attestation == "packed-self-wrong" or request.get("foreign")
            key = generate_key(credential.algorithm) if wrong else credential.key
            signature = sign(key, credential.algorithm, signed)
            return {"alg": credential.algorithm, "sig": flipped(signature) if request.get("flip_signature") else signature}
    raise Refused(f"unknown attestation {attestation!r}")


def attestation_object(request, statement, auth_data):
    members = {"fmt": "packed" if statement else "none", "attStmt": statement, "authData": auth_data}
    if "small_cbor_faults" in request:
        return malformed_object(request["small_cbor_faults"], members)
    encoded = cbor.encode(members)
    if "extra" not in request:
        # What no fault was asked for is well-formed: fido2 parses it.
        AttestationObject(encoded)
    return encoded


def malformed_object(fault, members):
    encoded = cbor.encode(members)
    pairs = {name: cbor.encode(name) + cbor.encode(value) for name, value in members.items()}
    body = encoded[1:]
    match fault:
        case "truncated":
            return encoded[:-1]
        case "trailing":
            return encoded + b"\x00"
        case "empty":
            return b""
        case "duplicate_key":
            return b"\xa4" + body + pairs["fmt"]
        case "indefinite":
            # Well-formed in RFC 8949, but not in the canonical form of CTAP2.
            return b"\xbf" + body + b"\xff"
        case "not_canonical":
            # The keys in the wrong order, which the canonical form of CTAP2 does not allow.
            return b"\xa3" + pairs["authData"] + pairs["attStmt"] + pairs["fmt"]
        case "not_a_map":
            return b"\x83" + b"".join(cbor.encode(value) for value in members.values())
        case "deep":
            # Arrays in arrays: a recursive parser without a limit overflows its stack.
            return b"\xa3" + pairs["fmt"] + cbor.encode("attStmt") + b"\x81" * 20_000 + b"\x80" + pairs["authData"]
        case "huge_length":
            # A parser that allocates what a length says runs out of memory.
            return b"\xa3" + pairs["fmt"] + pairs["attStmt"] + cbor.encode("authData") + b"\x5b" + b"\x7f" + b"\xff" * 7
        case "huge_map":
            return b"\xbb" + b"\x7f" + b"\xff" * 7 + body
        case "invalid_utf8":
            return b"\xa3" + cbor.encode("fmt") + b"\x64\xff\xfe\xfd\xfc" + pairs["attStmt"] + pairs["authData"]
        case "missing_auth_data":
            return b"\xa2" + pairs["fmt"] + pairs["attStmt"]
        case "no_credential_data":
            data = bytearray(members["authData"][:37])
            data[32] &= ~FLAG.AT
            return cbor.encode({**members, "authData": bytes(data)})
        case "short_auth_data":
            return cbor.encode({**members, "authData": members["authData"][:36]})
        case "long_credential_id":
            # The length of the id, after 37 bytes of header and 16 of AAGUID, is more than what follows.
            data = bytearray(members["authData"])
            data[53:55] = b"\xff\xff"
            return cbor.encode({**members, "authData": bytes(data)})
    raise Refused(f"unknown malformed attestation object {fault!r}")


def malformed_key(fault, credential):
    """The COSE key; malformed, if `fault` says how."""
    key = credential.public_key()
    applies_to = {"small_rsa": [-257], "off_curve": [-7, -35], "compressed": [-7, -35], "other_curve": [-7, -8, -35]}
    if credential.algorithm not in applies_to.get(fault, [credential.algorithm]):
        raise Refused(f"{fault} does not apply to algorithm {credential.algorithm}")
    match fault:
        case None | "small_rsa":
            return key
        case "off_curve":
            return CoseKey.parse({**key, -3: key[-3][:-1] + bytes([key[-3][-1] ^ 1])})
        case "compressed":
            # A sign bit instead of y: RFC 9053 has it, WebAuthn forbids it (section 5.8.5).
            return CoseKey.parse({**key, -3: bool(key[-3][-1] & 1)})
        case "missing_parameter":
            return CoseKey.parse({name: value for name, value in key.items() if name != -2})
        case "other_key_type":
            return CoseKey.parse({**key, 1: 3 if key[1] != 3 else 2})
        case "other_curve":
            return CoseKey.parse({**key, -1: 2 if key[-1] != 2 else 1})
        case "other_algorithm":
            return CoseKey.parse({**key, 3: -257 if key[3] != -257 else -7})
    raise Refused(f"unknown malformed key {fault!r}")


def public_key_credential(id, response, extensions):
    return {
        "id": websafe_encode(id),
        "rawId": websafe_encode(id),
        "response": response,
        "authenticatorAttachment": "platform",
        "clientExtensionResults": extensions,
        "type": "public-key",
    }


def answer(authenticator, line):
    request = json.loads(line)
    fields = FIELDS.get(request.get("do"))
    if fields is None:
        raise Refused(f"unknown command {request.get('do')!r}")
    if unknown := request.keys() - fields:
        raise Refused(f"unknown fields of {request['do']}: {', '.join(sorted(unknown))}")
    if missing := {"origin", "options"} - request.keys():
        raise Refused(f"missing fields of {request['do']}: {', '.join(sorted(missing))}")
    run = authenticator.create if request["do"] == "create" else authenticator.get
    return {"credential": run(request)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, help="the file that keeps the credentials; without it they are in memory")
    authenticator = Authenticator(parser.parse_args().store)
    for line in sys.stdin:
        try:
            result = answer(authenticator, line)
        except Refused as error:
            result = {"error": str(error)}
        except Exception as error:  # The next request must still be answered.
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
