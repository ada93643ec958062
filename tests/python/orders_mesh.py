"""Calls the Python orders service in a mesh: as every workload, as users, and over REST through the edge.

usage: orders_mesh.py READY-FILE ORDERS-READY-FILE

READY-FILE is the ready file of the mesh, ORDERS-READY-FILE that of the service. The generated code of the platform's
contracts and of acme.orders.v1 is imported from the directories that PYTHONPATH names.
"""

import base64
import datetime
import json
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import grpc
from acme.orders.v1 import orders_pb2, orders_pb2_grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from drystone.auth.v1 import auth_pb2, auth_pb2_grpc
from drystone.user.v1 import user_pb2, user_pb2_grpc

LISTED_ONLY = {"edge", "ingress", "operator"}
PASSWORD = "correct horse battery"


def read(path):
    return Path(path).read_bytes()


class Mesh:
    def __init__(self, ready_file, orders_ready_file):
        ready = json.loads(read(ready_file))
        certs = ready["certs"]
        self.ca = read(certs["ca"])
        self.rest = ready["rest"] if "://" in ready["rest"] else f"http://{ready['rest']}"
        self.grpc = ready["grpc"] | json.loads(read(orders_ready_file))["grpc"]
        files = {name: (paths["cert"], paths["key"]) for name, paths in certs.items() if name != "ca"}
        # A certificate issued after the start of the mesh is in the directory of the CA.
        directory = Path(certs["ca"]).parent
        if (directory / "orders.pem").exists():
            files.setdefault("orders", (directory / "orders.pem", directory / "orders.key"))
        self.credentials = {name: tuple(map(read, pair)) for name, pair in files.items()}

    def channel(self, service, credentials):
        """A channel with this certificate and key, with those of a workload, or without a certificate."""
        if isinstance(credentials, str):
            credentials = self.credentials[credentials]
        certificate, key = credentials or (None, None)
        ssl = grpc.ssl_channel_credentials(self.ca, key, certificate)
        return grpc.secure_channel(self.grpc[service], ssl, [("grpc.ssl_target_name_override", service)])

    def orders(self, credentials):
        return orders_pb2_grpc.OrderServiceStub(self.channel("orders", credentials))

    def request(self, method, path, body=None, token=None):
        """A REST call to the edge: the status and the JSON body of the response."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.rest}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")


def reason_of(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return None


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def call(rpc, request, token=None):
    return rpc(request, metadata=bearer(token) if token is not None else None, timeout=30)


def refused(reason, rpc, request, token=None, code=None):
    """Asserts that a call is refused with this reason."""
    try:
        answer = call(rpc, request, token)
    except grpc.RpcError as error:
        found = reason_of(error)
        assert found == reason, f"{found} is not {reason}: {error.code()} {error.details()}"
        assert code is None or error.code() == code, f"{error.code()} is not {code}"
        return error
    raise AssertionError(f"accepted, but must be refused with {reason}: {answer}")


def sign_up(mesh):
    """A new user: the id, the email address and a token."""
    auth = auth_pb2_grpc.AuthServiceStub(mesh.channel("auth", "edge"))
    email = f"python.{uuid.uuid4().hex}@example.com"
    auth.Register(auth_pb2.RegisterRequest(email=email, password=PASSWORD, display_name="Guido"), timeout=30)
    tokens = sign_in(mesh, email)
    return tokens.user_id, email, tokens.access_token


def sign_in(mesh, email):
    auth = auth_pb2_grpc.AuthServiceStub(mesh.channel("auth", "edge"))
    return auth.SignIn(auth_pb2.SignInRequest(email=email, password=PASSWORD), timeout=30)


def check_every_workload(mesh, user_id, token):
    """Calls each RPC as each workload. The allowed callers are deliberately repeated here."""
    workloads = sorted(mesh.credentials)
    outside = {"edge", "ingress", "operator"}
    cells = {
        "ListOrders": (outside, orders_pb2.ListOrdersRequest(), None),
        "CreateOrder": (outside, orders_pb2.CreateOrderRequest(article="anvil", quantity=1), None),
        "CancelOrder": (outside, orders_pb2.CancelOrderRequest(id=str(uuid.uuid4())), "PERMISSION_MISSING"),
        "CountUserOrders": ({"auth"}, orders_pb2.CountUserOrdersRequest(user_id=user_id), None),
        "GetOrderLimits": (set(workloads) - LISTED_ONLY, orders_pb2.GetOrderLimitsRequest(), None),
    }
    allowed_cells = denied_cells = 0
    for workload in workloads:
        orders = mesh.orders(workload)
        for name, (allowed, request, then) in cells.items():
            rpc = getattr(orders, name)
            if workload not in allowed:
                refused("CALLER_NOT_ALLOWED", rpc, request, token, grpc.StatusCode.PERMISSION_DENIED)
                denied_cells += 1
            elif then:
                refused(then, rpc, request, token, grpc.StatusCode.PERMISSION_DENIED)
                allowed_cells += 1
            else:
                call(rpc, request, token)
                allowed_cells += 1
        health = health_pb2_grpc.HealthStub(mesh.channel("orders", workload))
        answer = health.Check(health_pb2.HealthCheckRequest(service="acme.orders.v1.OrderService"), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
        unknown = mesh.channel("orders", workload).unary_unary("/acme.orders.v1.OrderService/DropAllTables")
        refused("METHOD_UNKNOWN", unknown, b"", token, grpc.StatusCode.UNIMPLEMENTED)
    assert allowed_cells and denied_cells and {"auth", "edge", "operator"} <= set(workloads), workloads
    print(f"{allowed_cells} calls allowed and {denied_cells} denied, as {', '.join(workloads)}")


def foreign_certificate(name):
    """A certificate with the name of a workload, issued by an unknown CA."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    uri = x509.UniformResourceIdentifier(f"spiffe://drystone.local/service/{name}")
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([uri, x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificate, key.private_bytes(*formats)


def check_untrusted_clients(mesh, token):
    """A client without a certificate of the mesh's CA gets no connection."""
    for credentials in (None, foreign_certificate("auth"), foreign_certificate("edge")):
        orders = mesh.orders(credentials)
        refused(None, orders.GetOrderLimits, orders_pb2.GetOrderLimitsRequest(), code=grpc.StatusCode.UNAVAILABLE)
        refused(None, orders.ListOrders, orders_pb2.ListOrdersRequest(), token, grpc.StatusCode.UNAVAILABLE)


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def decode(segment):
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def bad_tokens(token):
    """Invalid tokens derived from a valid one, without the signing key of the mesh."""
    header, payload, signature = token.split(".")
    claims, members = decode(payload), decode(header)
    own = ec.generate_private_key(ec.SECP256R1())

    def self_signed(header):
        signed = f"{encode(header)}.{payload}"
        r, s = decode_dss_signature(own.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        tag = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=").decode()
        return f"{signed}.{tag}"

    yield from ("x", "..", f"{header}.{payload}", f"{header}.{payload}.", f"{token}.{signature}", f"{token}=")
    yield f"{encode(members | {'alg': 'none'})}.{payload}."
    yield f"{header}.{encode(claims | {'perms': ['orders:manage']})}.{signature}"
    yield f"{header}.{encode(claims | {'exp': claims['exp'] + 3600})}.{signature}"
    yield f"{header}.{payload}.{'A' * len(signature)}"
    yield self_signed(members)
    yield self_signed(members | {"kid": "unknown"})


def check_tokens(mesh, token):
    orders = mesh.orders("edge")
    request = orders_pb2.ListOrdersRequest()
    refused("TOKEN_MISSING", orders.ListOrders, request, code=grpc.StatusCode.UNAUTHENTICATED)
    for bad in bad_tokens(token):
        refused("TOKEN_INVALID", orders.ListOrders, request, bad, grpc.StatusCode.UNAUTHENTICATED)
    call(orders.ListOrders, request, token)


def check_orders(mesh):
    """Users see only their own orders, in pages."""
    user_id, _, token = sign_up(mesh)
    _, _, other = sign_up(mesh)
    orders = mesh.orders("edge")
    request = orders_pb2.CreateOrderRequest(article="anvil", quantity=2, request_id=str(uuid.uuid4()))
    first = call(orders.CreateOrder, request, token)
    assert first.owner_id == user_id and (first.article, first.quantity) == ("anvil", 2), first
    assert call(orders.CreateOrder, request, token) == first
    second = call(orders.CreateOrder, orders_pb2.CreateOrderRequest(article="rope", quantity=1), token)
    page = call(orders.ListOrders, orders_pb2.ListOrdersRequest(page_size=1), token)
    assert list(page.orders) == [first] and page.next_page_token, page
    request = orders_pb2.ListOrdersRequest(page_size=1, page_token=page.next_page_token)
    page = call(orders.ListOrders, request, token)
    assert list(page.orders) == [second] and not page.next_page_token, page
    assert not call(orders.ListOrders, orders_pb2.ListOrdersRequest(), other).orders
    count = call(mesh.orders("auth").CountUserOrders, orders_pb2.CountUserOrdersRequest(user_id=user_id))
    assert count.count == 2, count
    invalid = orders_pb2.CreateOrderRequest(article="", quantity=1)
    refused("INVALID_REQUEST", orders.CreateOrder, invalid, token, grpc.StatusCode.INVALID_ARGUMENT)


def check_rest(mesh):
    _, _, token = sign_up(mesh)
    status, created = mesh.request("POST", "/v1/orders", {"article": "anvil", "quantity": 3}, token)
    assert status == 200 and (created["article"], created["quantity"]) == ("anvil", 3), (status, created)
    status, listed = mesh.request("GET", "/v1/orders?pageSize=10", token=token)
    assert status == 200 and listed["orders"] == [created], (status, listed)

    def rest_refused(status, reason, *request, **options):
        found, body = mesh.request(*request, **options)
        reasons = [detail.get("reason") for detail in body.get("details", ())]
        assert found == status and reason in reasons, (found, body)

    rest_refused(401, "TOKEN_MISSING", "GET", "/v1/orders")
    rest_refused(401, "TOKEN_MISSING", "POST", "/v1/orders", {"article": "anvil", "quantity": 3})
    rest_refused(401, "TOKEN_INVALID", "GET", "/v1/orders", token=f"{token}x")
    rest_refused(400, "INVALID_REQUEST", "POST", "/v1/orders", {"article": "", "quantity": 3}, token)
    rest_refused(403, "PERMISSION_MISSING", "POST", f"/v1/orders/{created['id']}:cancel", {}, token)
    # An RPC without a REST binding is unreachable.
    rest_refused(404, "ROUTE_NOT_FOUND", "POST", "/acme.orders.v1.OrderService/CountUserOrders", {}, token=token)


def check_permission(mesh):
    """An administrator has the permission that the contract of orders declares."""
    owner_id, _, token = sign_up(mesh)
    order = call(mesh.orders("edge").CreateOrder, orders_pb2.CreateOrderRequest(article="rope", quantity=1), token)
    admin_id, email, member_token = sign_up(mesh)
    users = user_pb2_grpc.UserServiceStub(mesh.channel("user", "operator"))
    users.SetUserRoles(user_pb2.SetUserRolesRequest(id=admin_id, roles=["admin", "member"]), timeout=30)
    # A role change revokes earlier tokens.
    refused("TOKEN_REVOKED", mesh.orders("edge").ListOrders, orders_pb2.ListOrdersRequest(), member_token)
    admin = sign_in(mesh, email).access_token
    permissions = decode(admin.split(".")[1]).get("perms", [])
    assert "orders:manage" in permissions, f"the role admin does not grant orders:manage: {permissions}"
    status, answer = mesh.request("POST", f"/v1/orders/{order.id}:cancel", {}, admin)
    assert (status, answer) == (200, {}), (status, answer)
    count = call(mesh.orders("auth").CountUserOrders, orders_pb2.CountUserOrdersRequest(user_id=owner_id))
    assert count.count == 0, count
    refused("ORDER_NOT_FOUND", mesh.orders("edge").CancelOrder, orders_pb2.CancelOrderRequest(id=order.id), admin)


def check_sign_out(mesh, token):
    """When SignOut returns, the service refuses the token."""
    auth = auth_pb2_grpc.AuthServiceStub(mesh.channel("auth", "edge"))
    call(mesh.orders("edge").ListOrders, orders_pb2.ListOrdersRequest(), token)
    call(auth.SignOut, auth_pb2.SignOutRequest(), token)
    refused("TOKEN_REVOKED", mesh.orders("edge").ListOrders, orders_pb2.ListOrdersRequest(), token)
    status, body = mesh.request("GET", "/v1/orders", token=token)
    assert status == 401 and body["details"][0]["reason"] == "TOKEN_REVOKED", (status, body)


def main():
    mesh = Mesh(*sys.argv[1:3])
    user_id, _, token = sign_up(mesh)
    check_every_workload(mesh, user_id, token)
    check_untrusted_clients(mesh, token)
    check_tokens(mesh, token)
    check_orders(mesh)
    check_rest(mesh)
    check_permission(mesh)
    check_sign_out(mesh, token)
    print("all checks passed")


if __name__ == "__main__":
    main()
