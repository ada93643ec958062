"""Runs the example service as a separate process, built with the commands of its README, and tests/python/orders_mesh.py
against it. Auth, user, session and edge are mocks in this process.
"""

import base64
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import unittest
import uuid

import grpc
import support
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

EXAMPLE = support.ROOT / "examples/orders-python"
NAMES = ("auth", "user", "session", "property", "orders", "edge", "ingress", "operator")


class Accounts:
    """Registration, sign-in, sign-out and roles."""

    def __init__(self, signer, session):
        self.signer = signer
        self.session = session
        self.ids = {}
        self.admins = set()

    def add_to(self, server):
        accounts = {"Register": self.register, "SignIn": self.sign_in, "SignOut": self.sign_out}
        self._add(server, "drystone.auth.v1", "AuthService", **accounts)
        self._add(server, "drystone.user.v1", "UserService", SetUserRoles=self.set_roles)

    def _add(self, server, package, service, **methods):
        handlers = {}
        for name, method in methods.items():
            request = support.platform().get(f"{package}.{name}Request")
            write = lambda answer: answer.SerializeToString()  # noqa: E731
            handlers[name] = grpc.unary_unary_rpc_method_handler(method, request.FromString, write)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{package}.{service}", handlers),))

    def register(self, request, context):
        self.ids[request.email] = support.uuid7(time.time())
        return support.platform().get("drystone.auth.v1.RegisterResponse")()

    def sign_in(self, request, context):
        user_id, session_id = self.ids[request.email], str(uuid.uuid4())
        permissions = ["orders:manage"] if user_id in self.admins else []
        token = self.signer.token(sub=user_id, sid=session_id, perms=permissions)
        return support.platform().get("drystone.auth.v1.SignInResponse")(access_token=token, user_id=user_id)

    def sign_out(self, request, context):
        payload = dict(context.invocation_metadata())["authorization"].split(".")[1]
        self.session.revoke_session(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])
        return support.platform().get("drystone.auth.v1.SignOutResponse")()

    def set_roles(self, request, context):
        self.admins.add(request.id)
        self.session.revoke(user_tokens={"user_id": request.id, "before_time": support.now()})
        time.sleep(0.002)  # a token issued in the same millisecond would be revoked
        return support.platform().get("drystone.user.v1.User")()


def edge(channel, messages):
    """A mock edge: forwards the REST paths of orders to the service."""
    routes = (
        ("GET", r"/v1/orders", "ListOrders", "ListOrdersResponse"),
        ("POST", r"/v1/orders", "CreateOrder", "Order"),
        ("POST", r"/v1/orders/(?P<id>[^/:]+):cancel", "CancelOrder", "CancelOrderResponse"),
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.partition("?")[0]
            for method, pattern, name, response in routes:
                if method == self.command and (match := re.fullmatch(pattern, path)):
                    return self.forward(name, response, json.loads(body or b"{}") | match.groupdict())
            self.answer(404, {"details": [{"reason": "ROUTE_NOT_FOUND"}]})

        do_POST = do_GET

        def forward(self, name, response, fields):
            request = json_format.ParseDict(fields, messages.get(f"acme.orders.v1.{name}Request")())
            stub = channel.unary_unary(
                f"/acme.orders.v1.OrderService/{name}",
                type(request).SerializeToString,
                messages.get(f"acme.orders.v1.{response}").FromString,
            )
            token = self.headers.get("authorization")
            try:
                answer = stub(request, timeout=10, metadata=[("authorization", token)] if token else None)
                self.answer(200, json_format.MessageToDict(answer))
            except grpc.RpcError as error:
                info = error_details_pb2.ErrorInfo()
                rpc_status.from_call(error).details[0].Unpack(info)
                statuses = {"INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
                self.answer(statuses.get(error.code().name, 500), {"details": [{"reason": info.reason}]})

        def answer(self, status, value):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class OrdersTest(unittest.TestCase):
    def test_the_example_in_a_mesh(self):
        directory = support.scratch() / "orders"
        shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("*.binpb", "acme_*", "__pycache__"))
        shutil.copy(support.platform_set(), directory / "drystone.binpb")
        self.run_readme(directory)

        ca = support.Authority()
        certs = {}
        for name in NAMES:
            certificate, key, root = ca.files(directory / "certs", name)
            certs[name] = {"cert": certificate, "key": key}
        signer, session = support.Signer(), support.SessionService()
        accounts = Accounts(signer, session)
        servers = {
            "auth": support.start_server(ca, "auth", support.AuthService([signer]), accounts),
            "user": support.start_server(ca, "user", accounts),
            "session": support.start_server(ca, "session", session),
        }
        for server, _ in servers.values():
            self.addCleanup(server.stop, 0)
        addresses = {name: address for name, (_, address) in servers.items()}

        environment = os.environ | {
            "PYTHONPATH": f"{support.HERE.parent}{os.pathsep}{directory}{os.pathsep}{directory / 'generated'}",
            "DRYSTONE_PLATFORM": "drystone.binpb",
            "DRYSTONE_SESSION": addresses["session"],
            "DRYSTONE_ISSUER": support.ISSUER,
            "GRPC_VERBOSITY": "NONE",
        }
        orders_ready = directory / "orders-ready.json"
        log = open(directory / "log", "wb+")
        self.addCleanup(log.close)
        service = subprocess.Popen(
            [sys.executable, "service.py", "--auth", addresses["auth"], "--ready-file", str(orders_ready), "--ca", root,
             "--cert", certs["orders"]["cert"], "--key", certs["orders"]["key"]],
            cwd=directory, env=environment, stderr=log,
        )  # fmt: skip
        self.addCleanup(service.wait)
        self.addCleanup(service.terminate)
        deadline = time.monotonic() + 30
        while not orders_ready.exists():
            self.assertIsNone(service.poll(), (directory / "log").read_text())
            self.assertLess(time.monotonic(), deadline, (directory / "log").read_text())
            time.sleep(0.02)

        from drystone_mesh import Messages

        messages = Messages.decode((directory / "orders.binpb").read_bytes())
        address = json.loads(orders_ready.read_text())["grpc"]["orders"]
        channel = ca.channel(address, "orders", ca.issue("edge"))
        self.addCleanup(channel.close)
        rest = edge(channel, messages)
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        self.addCleanup(rest.server_close)
        self.addCleanup(rest.shutdown)
        ready = directory / "ready.json"
        rest_address = f"http://127.0.0.1:{rest.server_port}"
        ready.write_text(json.dumps({"grpc": addresses, "rest": rest_address, "certs": certs | {"ca": root}}))

        platform = ["auth/v1/auth.proto", "user/v1/user.proto", "access/v1/access.proto"]
        (directory / "generated").mkdir()
        support.protoc(
            "--descriptor_set_in=drystone.binpb", "--python_out=generated", "--grpc_python_out=generated",
            *(f"drystone/{path}" for path in platform), "buf/validate/validate.proto", cwd=directory,
        )  # fmt: skip
        output = subprocess.run(
            [sys.executable, support.ROOT / "tests/python/orders_mesh.py", ready, orders_ready],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        lines = (directory / "log").read_text()
        self.assertEqual(output.returncode, 0, f"{output.stdout}{output.stderr}{lines}")
        self.assertTrue(output.stdout.endswith("all checks passed\n"), output.stdout)
        service.terminate()
        self.assertEqual(service.wait(20), 0)
        parsed = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
        self.assertTrue(any(line["message"] == "audited call" and line.get("user") for line in parsed))
        self.assertNotIn("Bearer", lines)

    def run_readme(self, directory):
        """Runs the commands that generate contract and code; the export already exists."""
        readme = (directory / "README.md").read_text()
        section = re.search(r"<!-- contract -->\s*```sh\n(.*?)```", readme, re.S).group(1)
        commands = [line for line in section.splitlines() if line.startswith("python ")]
        self.assertEqual(len(commands), 2)
        for command in commands:
            subprocess.run([sys.executable, *command.split()[1:]], check=True, cwd=directory)


if __name__ == "__main__":
    unittest.main()
