"""Calls Drystone through an ingress with the generated Python code: TLS without a client certificate.

usage: ingress.py ADDRESS CA

The generated code is imported from the directories that PYTHONPATH names.
"""

import queue
import sys
import uuid

import grpc

from drystone.auth.v1 import auth_pb2, auth_pb2_grpc
from drystone.session.v1 import session_pb2, session_pb2_grpc
from drystone.user.v1 import user_pb2, user_pb2_grpc


def refused(call, code, reason):
    """Asserts that a call fails with this code and reason."""
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} is not {code}: {error.details()}"
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        assert reason.encode() in details, f"{reason} is not in {details}"
        return
    raise AssertionError(f"the call was accepted: {answer}")


def main():
    address, ca = sys.argv[1:]
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
    channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "localhost")])
    email, password = f"python.{uuid.uuid4().hex}@example.com", "correct horse"

    auth = auth_pb2_grpc.AuthServiceStub(channel)
    user = auth.Register(
        auth_pb2.RegisterRequest(email=email, password=password, display_name="Guido")
    ).user
    tokens = auth.SignIn(auth_pb2.SignInRequest(email=email, password=password))
    token = [("authorization", f"Bearer {tokens.access_token}")]
    users = user_pb2_grpc.UserServiceStub(channel)
    assert users.GetMe(user_pb2.GetMeRequest(), metadata=token) == user
    sessions = session_pb2_grpc.SessionServiceStub(channel)
    listed = sessions.ListSessions(session_pb2.ListSessionsRequest(), metadata=token)
    assert [session.id for session in listed.sessions] == [tokens.session_id], listed

    get_me = lambda metadata: users.GetMe(user_pb2.GetMeRequest(), metadata=metadata)
    refused(lambda: get_me(None), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    auth.SignOut(auth_pb2.SignOutRequest(), metadata=token)
    refused(lambda: get_me(token), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REVOKED")

    # A stream in both directions, of encoded messages: each is sent back twice before the next one is sent.
    chat = channel.stream_stream(
        "/acme.fixture.v1.FixtureService/Chat",
        request_serializer=lambda text: text,
        response_deserializer=lambda text: text,
    )
    requests = queue.Queue()
    responses = chat(iter(requests.get, None), timeout=30)
    for text in (b"\x0a\x03one", b"\x0a\x03two"):
        requests.put(text)
        assert [next(responses), next(responses)] == [text, text]
    requests.put(None)
    assert list(responses) == []

    # A stream that is given up.
    requests = queue.Queue()
    responses = chat(iter(requests.get, None), timeout=30)
    requests.put(b"\x0a\x03one")
    next(responses)
    responses.cancel()
    print("all checks passed", flush=True)
    # The caller looks whether the stream has ended, while this process holds the connection.
    sys.stdin.readline()
    requests.put(None)


if __name__ == "__main__":
    main()
