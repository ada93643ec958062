"""Calls Drystone with the generated Python code only: as a workload, and as a user with a token.

usage: call.py READY-FILE

The generated code is imported from the directories that PYTHONPATH names.
"""

import json
import sys
import uuid

import grpc

from drystone.auth.v1 import auth_pb2, auth_pb2_grpc
from drystone.property.v1 import property_pb2, property_pb2_grpc
from drystone.session.v1 import session_pb2, session_pb2_grpc
from drystone.user.v1 import user_pb2, user_pb2_grpc


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Mesh:
    def __init__(self, ready_file):
        self.ready = json.loads(read(ready_file))

    def channel(self, service, workload):
        """A mutual TLS channel to a service with the certificate of a workload."""
        certs = self.ready["certs"]
        credentials = grpc.ssl_channel_credentials(
            root_certificates=read(certs["ca"]),
            private_key=read(certs[workload]["key"]),
            certificate_chain=read(certs[workload]["cert"]),
        )
        # The certificate of a service has its name as DNS name, independent of its address.
        return grpc.secure_channel(
            self.ready["grpc"][service], credentials, [("grpc.ssl_target_name_override", service)]
        )


def refused(call, code):
    """Asserts that a call fails with this code; returns its message."""
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} is not {code}: {error.details()}"
        return error.details()
    raise AssertionError(f"the call was accepted: {answer}")


def main():
    mesh = Mesh(sys.argv[1])
    email, password = f"python.{uuid.uuid4().hex}@example.com", "correct horse"

    # As a workload: the edge may register users and sign them in.
    auth = auth_pb2_grpc.AuthServiceStub(mesh.channel("auth", "edge"))
    user = auth.Register(
        auth_pb2.RegisterRequest(email=email, password=password, display_name="Guido")
    ).user
    assert user.email == email, user
    tokens = auth.SignIn(auth_pb2.SignInRequest(email=email, password=password))
    assert tokens.user_id == user.id and 290 <= tokens.expires_in <= 300, tokens.expires_in

    # Only auth may call LookUpForSignIn; the session service may not.
    looked_up = user_pb2_grpc.UserServiceStub(mesh.channel("user", "auth")).LookUpForSignIn(
        user_pb2.LookUpForSignInRequest(email=email.upper())
    )
    assert looked_up.user_id == user.id and list(looked_up.roles) == ["member"], looked_up
    not_allowed = user_pb2_grpc.UserServiceStub(mesh.channel("user", "session"))
    request = user_pb2.LookUpForSignInRequest(email=email)
    refused(lambda: not_allowed.LookUpForSignIn(request), grpc.StatusCode.PERMISSION_DENIED)

    # As a user: with the token, and refused without it.
    token = [("authorization", f"Bearer {tokens.access_token}")]
    users = user_pb2_grpc.UserServiceStub(mesh.channel("user", "edge"))
    assert users.GetMe(user_pb2.GetMeRequest(), metadata=token) == user
    refused(lambda: users.GetMe(user_pb2.GetMeRequest()), grpc.StatusCode.UNAUTHENTICATED)

    properties = property_pb2_grpc.PropertyServiceStub(mesh.channel("property", "edge"))
    request = property_pb2.CreatePropertyRequest(display_name="Barn", labels={"colour": "red"})
    created = properties.CreateProperty(request, metadata=token)
    assert created.owner_id == user.id and dict(created.labels) == {"colour": "red"}, created
    listed = properties.ListProperties(property_pb2.ListPropertiesRequest(), metadata=token)
    assert list(listed.properties) == [created], listed
    invalid = property_pb2.CreatePropertyRequest(display_name="")
    create = lambda: properties.CreateProperty(invalid, metadata=token)
    assert "display_name" in refused(create, grpc.StatusCode.INVALID_ARGUMENT)

    sessions = session_pb2_grpc.SessionServiceStub(mesh.channel("session", "operator"))
    listed = sessions.ListSessions(session_pb2.ListSessionsRequest(), metadata=token)
    assert [session.id for session in listed.sessions] == [tokens.session_id], listed

    # After sign-out every service refuses the token.
    auth.SignOut(auth_pb2.SignOutRequest(), metadata=token)
    for call in (
        lambda: users.GetMe(user_pb2.GetMeRequest(), metadata=token),
        lambda: properties.ListProperties(property_pb2.ListPropertiesRequest(), metadata=token),
        lambda: sessions.ListSessions(session_pb2.ListSessionsRequest(), metadata=token),
    ):
        refused(call, grpc.StatusCode.UNAUTHENTICATED)

    print("all checks passed")


if __name__ == "__main__":
    main()
