"""Decides about calls as a service with the library drystone_mesh does, without a socket.

usage: decide_calls.py SETTINGS CALLS

SETTINGS is a JSON object: `issuer` and `audience` of tokens, `trust_domain`, `contracts` (a descriptor set), `keys` (a JWK
set), and `certificates` (the file of each workload). CALLS has a JSON object in each line: `caller`, `method`, `at` and,
for a call with a token, `token`. Writes a JSON object for each: `allowed`, `part` and `reason`.
"""

import datetime
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import grpc
from drystone_mesh.access import AccessInterceptor, Denial
from drystone_mesh.contract import Contract
from drystone_mesh.errors import reason_of
from drystone_mesh.keys import KeySet, PublicKey
from drystone_mesh.revocations import RevocationView
from drystone_mesh.tokens import Verifier


class Record:
    """What the interceptor notes about a call."""

    call = None
    has_permit = False

    def take_permit(self):
        taken, self.has_permit = self.has_permit, False
        return taken


class Refused(Exception):
    """The status that the library refuses a call with, as a failed call has it."""

    def __init__(self, status):
        super().__init__(status.details)
        self._status = status

    def code(self):
        return self._status.code

    def details(self):
        return self._status.details

    def trailing_metadata(self):
        return self._status.trailing_metadata


class Context:
    """The caller and the metadata of a call."""

    def __init__(self, certificate, token):
        self._certificate = certificate
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]

    def auth_context(self):
        return {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [self._certificate]}

    def invocation_metadata(self):
        return self._metadata

    def abort_with_status(self, status):
        raise Refused(status)


class Service:
    """The interceptor of a service that serves all RPCs, at any time."""

    def __init__(self, settings):
        self._now = 0.0
        rules = {}
        descriptor_set = Path(settings["contracts"]).read_bytes()
        for workload in settings["services"]:
            rules |= Contract.decode(descriptor_set, workload).methods
        keys = KeySet()
        absent = dict.fromkeys(("kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"), "")
        jwks = json.loads(Path(settings["keys"]).read_text())["keys"]
        keys.replace(PublicKey.from_jwk(SimpleNamespace(**absent | jwk)) for jwk in jwks)
        revocations = RevocationView()
        revocations.apply([])
        verifier = Verifier(settings["issuer"], settings["audience"], keys, revocations, clock=lambda: self._now)
        own = SimpleNamespace(svid=SimpleNamespace(is_valid_at=lambda now: True))
        identity = SimpleNamespace(trust_domain=settings["trust_domain"], current=lambda: own)
        self._rules = rules
        self._interceptor = AccessInterceptor(rules, identity, verifier, clock=lambda: self._now)
        self._certificates = {name: Path(path).read_bytes() for name, path in settings["certificates"].items()}

    def decide(self, call):
        path = "/" + call["method"].removeprefix("/")
        context = Context(self._certificates[call["caller"]], call.get("token"))
        self._now = datetime.datetime.fromisoformat(call["at"]).timestamp()
        refused_by = self._refusal_of_method(path)
        if refused_by is not None:
            try:
                refused_by(iter(()), context)
            except Refused as refused:
                return "method", reason_of(refused)
            raise AssertionError("an unknown method was answered")
        record = Record()
        try:
            self._interceptor.authorize(self._rules[path], context, record)
        except Denial as denial:
            return denial.part, denial.failure.reason
        finally:
            self._interceptor._release(record)
        return None, None

    def _refusal_of_method(self, path):
        """The handler that the interceptor refuses the method with; None if it asks for that of the service."""
        asked = []

        def handler_of_service(details):
            asked.append(details.method)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

        handler = self._interceptor.intercept_service(handler_of_service, SimpleNamespace(method=path))
        return None if asked else handler.stream_stream


def main():
    service = Service(json.loads(Path(sys.argv[1]).read_text()))
    for line in Path(sys.argv[2]).read_text().splitlines():
        part, reason = service.decide(json.loads(line))
        print(json.dumps({"allowed": part is None, "part": part, "reason": reason}))


if __name__ == "__main__":
    main()
