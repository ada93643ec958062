"""A server of the test contract over real mutual TLS, with mock auth and session services in this process."""

import contextlib
import json
import logging
import threading
import time
import unittest

import grpc
import support

from drystone_mesh import Config, Failure, Limits, MeshServer, current_call, reason_of
from drystone_mesh.logs import JsonFormatter

SERVICE = "acme.things.v1.ThingService"
CODES = grpc.StatusCode


class Things:
    """The handlers of the test contract. They record each served call."""

    def __init__(self):
        from drystone_mesh import Messages

        self.text = Messages.decode(support.things_set().read_bytes()).get("acme.things.v1.Text")
        self.served = []
        self.release = threading.Event()
        self.echoes = 0

    def answer(self, request, context):
        call = current_call()
        self.served.append(call)
        if request.text == "crash":
            raise ValueError("a secret of the handler")
        if request.text == "abort":
            context.abort(CODES.NOT_FOUND, "aborted")
        if request.text == "fail":
            raise Failure("THING_NOT_FOUND", "no such thing", code=CODES.NOT_FOUND, domain="acme.things.v1")
        return self.text(text=str(call.principal.user_id) if call.principal else request.text)

    def slow(self, request, context):
        if request.text:
            assert self.release.wait(20)
        return request

    def split(self, request, context):
        for part in request.text.split():
            if part == "fail":
                raise Failure.invalid_field("text", "must not fail")
            yield self.text(text=f"{part} {current_call().user.user_id}")

    def join(self, requests, context):
        return self.text(text=" ".join(request.text for request in requests))

    def echo(self, requests, context):
        self.echoes += 1
        yield from requests

    def add_to(self, server):
        parse, write = self.text.FromString, self.text.SerializeToString
        names = (
            "ForAny", "ForAuth", "ForUser", "ForManager", "ForManagerOrOperator", "ForOwner", "ForRecent", "ForTwoFactors",
            "ForPasskey", "NoRule",
        )  # fmt: skip
        unary = {name: self.answer for name in names}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(method, parse, write)
            for name, method in (unary | {"Slow": self.slow}).items()
        }
        handlers["Split"] = grpc.unary_stream_rpc_method_handler(self.split, parse, write)
        handlers["Join"] = grpc.stream_unary_rpc_method_handler(self.join, parse, write)
        handlers["Echo"] = grpc.stream_stream_rpc_method_handler(self.echo, parse, write)
        other = {"ForAny": grpc.unary_unary_rpc_method_handler(self.answer, parse, write)}
        for service, methods in ((SERVICE, handlers), ("acme.things.v1.OtherService", other)):
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))


class Lines(logging.Handler):
    """Captures log lines as JSON."""

    def __init__(self):
        super().__init__()
        self.formatter = JsonFormatter()
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))

    def wait_for(self, **fields):
        """The first line with these fields."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for line in map(json.loads, list(self.texts)):
                if fields.items() <= line.items():
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line with {fields}: {self.texts}")


class MeshTest(unittest.TestCase):
    """Starts a mesh for each test class."""

    LIMITS = Limits()

    @classmethod
    def setUpClass(cls):
        cls.ca = support.Authority()
        cls.credentials = {name: cls.ca.issue(name) for name in support.WORKLOADS}
        cls.signer = support.Signer()
        cls.auth, cls.session, cls.things = support.AuthService([cls.signer]), support.SessionService(), Things()
        auth_server, auth_address = support.start_server(cls.ca, "auth", cls.auth)
        session_server, session_address = support.start_server(cls.ca, "session", cls.session)
        cert, key, ca = cls.ca.files(support.scratch() / cls.__name__, "things")
        cls.config = Config(
            workload="things", contract=str(support.things_set()), platform=str(support.platform_set()), cert=cert,
            key=key, ca=ca, auth=auth_address, session=session_address, issuer=support.ISSUER,
        )  # fmt: skip
        cls.lines = Lines()
        root = logging.getLogger("drystone")
        root.addHandler(cls.lines)
        root.setLevel(logging.INFO)
        root.propagate = False
        cls.clock_offset = 0.0
        cls.server = MeshServer(cls.config, cls.things.add_to, cls.LIMITS, lambda: time.time() + cls.clock_offset)
        cls.server.start()
        cls.channels = contextlib.ExitStack()

        def stop():
            cls.things.release.set()
            cls.channels.close()
            cls.server.stop(0)
            auth_server.stop(0).wait()
            session_server.stop(0).wait()
            root.removeHandler(cls.lines)

        cls.addClassCleanup(stop)
        assert cls.server.wait_until_ready(20)

    def channel(self, workload, credentials=None):
        channel = self.ca.channel(self.server.address, "things", credentials or self.credentials.get(workload))
        self.channels.enter_context(channel)
        return channel

    def call(
        self, workload, method, text="hello", *, token=None, metadata=(), credentials=None, service=SERVICE, timeout=10
    ):  # fmt: skip
        """The text of the answer."""
        stub = self.channel(workload, credentials).unary_unary(f"/{service}/{method}")
        metadata = list(metadata) + ([("authorization", f"Bearer {token}")] if token is not None else [])
        answer = stub(self.things.text(text=text).SerializeToString(), timeout=timeout, metadata=metadata)
        return self.things.text.FromString(answer).text

    def refused(self, reason, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            self.call(*arguments, **options)
        self.assertEqual(reason_of(caught.exception), reason, caught.exception)
        return caught.exception
