"""Authorization over real mutual TLS."""

import threading
import time
import unittest

from google.rpc import error_details_pb2
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from mesh import CODES, SERVICE, MeshTest
import support

from drystone_mesh import reason_of


def metadata_of(error):
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    return dict(info.metadata)


class AccessTest(MeshTest):
    def test_each_rpc_is_callable_only_by_the_workloads_in_its_rule(self):
        token = self.signer.token(perms=["things:manage"])
        entry_points = {"edge", "ingress"}
        callers = {
            "ForAny": set(support.WORKLOADS) - entry_points - {"operator"},
            "Slow": set(support.WORKLOADS) - entry_points - {"operator"},
            "ForAuth": {"auth"},
            "ForUser": entry_points | {"user"},
            "ForManager": entry_points,
            "ForManagerOrOperator": entry_points | {"operator"},
            "ForRecent": entry_points,
        }
        for method, allowed in callers.items():
            for workload in support.WORKLOADS:
                with self.subTest(f"{method} as {workload}"):
                    served = len(self.things.served)
                    text = "" if method == "Slow" else "hello"
                    if workload in allowed:
                        self.call(workload, method, text, token=token)
                    else:
                        error = self.refused("CALLER_NOT_ALLOWED", workload, method, text, token=token)
                        self.assertEqual(error.code(), CODES.PERMISSION_DENIED)
                        self.assertEqual(len(self.things.served), served)

    def test_streaming_rpcs_have_access_rules(self):
        token = [("authorization", f"Bearer {self.signer.token()}")]
        text, parse = self.things.text, self.things.text.FromString
        write = text.SerializeToString

        def split(workload, metadata=token, words="a b"):
            stub = self.channel(workload).unary_stream(f"/{SERVICE}/Split", write, parse)
            return [answer.text.split()[0] for answer in stub(text(text=words), timeout=10, metadata=metadata)]

        def join(workload):
            stub = self.channel(workload).stream_unary(f"/{SERVICE}/Join", write, parse)
            return stub(iter([text(text="a"), text(text="b")]), timeout=10).text

        def echo(workload):
            stub = self.channel(workload).stream_stream(f"/{SERVICE}/Echo", write, parse)
            return [answer.text for answer in stub(iter([text(text="a"), text(text="b")]), timeout=10)]

        self.assertEqual(split("edge"), ["a", "b"])
        self.assertEqual(join("auth"), "a b")
        self.assertEqual(echo("auth"), ["a", "b"])
        for call, reason in (
            (lambda: split("auth"), "CALLER_NOT_ALLOWED"),
            (lambda: split("edge", None), "TOKEN_MISSING"),
            (lambda: split("edge", words="a fail"), "INVALID_REQUEST"),
            (lambda: join("edge"), "CALLER_NOT_ALLOWED"),
            (lambda: echo("user"), "CALLER_NOT_ALLOWED"),
        ):
            with self.assertRaises(grpc.RpcError) as caught:
                call()
            self.assertEqual(reason_of(caught.exception), reason)

    def test_an_rpc_without_a_rule_is_unknown(self):
        for service, method in (
            (SERVICE, "NoRule"),
            (SERVICE, "NotRegistered"),
            (SERVICE, "DropAllTables"),
            ("acme.things.v1.OtherService", "ForAny"),
            ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo"),
            ("x", "y"),
        ):
            error = self.refused("METHOD_UNKNOWN", "auth", method, service=service)
            self.assertEqual(error.code(), CODES.UNIMPLEMENTED)

    def test_subject_user_requires_a_valid_token(self):
        claims = support.claims()
        self.assertEqual(self.call("edge", "ForUser", token=self.signer.sign(claims)), claims["sub"])
        self.refused("TOKEN_MISSING", "edge", "ForUser")
        self.refused("TOKEN_INVALID", "edge", "ForUser", token="x")
        self.refused("TOKEN_INVALID", "edge", "ForUser", token=support.Signer().token())
        self.refused("TOKEN_INVALID", "edge", "ForUser", metadata=[("authorization", "Basic x")])
        twice = [("authorization", f"Bearer {self.signer.token()}")] * 2
        self.refused("TOKEN_INVALID", "edge", "ForUser", metadata=twice)
        self.refused("TOKEN_EXPIRED", "edge", "ForUser", token=self.signer.token(time.time() - 400))
        # With SUBJECT_NONE the token is ignored.
        self.assertEqual(self.call("auth", "ForAny", token="x"), "hello")
        self.assertIsNone(self.things.served[-1].principal)

    def test_the_operator_needs_no_token_where_the_rule_says_so(self):
        self.assertEqual(self.call("operator", "ForManagerOrOperator"), "hello")
        self.assertIsNone(self.things.served[-1].principal)
        self.refused("TOKEN_MISSING", "edge", "ForManagerOrOperator")
        # A token that is sent counts.
        self.refused("TOKEN_INVALID", "operator", "ForManagerOrOperator", token="x")
        self.refused("PERMISSION_MISSING", "operator", "ForManagerOrOperator", token=self.signer.token())
        manager = self.signer.sign(support.claims(perms=["things:manage"]))
        self.call("edge", "ForManagerOrOperator", token=manager)

    def test_who_holds_any_holds_own(self):
        for permission, is_held in (
            ("things:read:own", True),
            ("things:read:any", True),
            ("things:read", False),
            ("things:write:any", False),
        ):
            token = self.signer.sign(support.claims(perms=[permission]))
            if is_held:
                self.call("edge", "ForOwner", token=token)
            else:
                self.refused("PERMISSION_MISSING", "edge", "ForOwner", token=token)

    def test_the_caller_is_checked_before_token_and_message(self):
        self.refused("CALLER_NOT_ALLOWED", "auth", "ForUser", token="x")
        stub = self.channel("user").unary_unary(f"/{SERVICE}/ForAuth")
        with self.assertRaises(grpc.RpcError) as caught:
            stub(b"\xff\xff", timeout=10)
        self.assertEqual(reason_of(caught.exception), "CALLER_NOT_ALLOWED")
        with self.assertRaises(grpc.RpcError) as caught:
            self.channel("auth").unary_unary(f"/{SERVICE}/ForAuth")(b"\xff\xff", timeout=10)
        self.assertEqual(reason_of(caught.exception), "INVALID_REQUEST")

    def test_a_caller_that_sends_nothing_is_refused_and_occupies_no_thread(self):
        released = threading.Event()
        self.addCleanup(released.set)

        def nothing():
            released.wait(60)
            return
            yield

        stub = self.channel("user").stream_unary(f"/{SERVICE}/ForAuth")
        for call in [stub.future(nothing(), timeout=60) for _ in range(150)]:
            self.assertEqual(reason_of(call.exception(20)), "CALLER_NOT_ALLOWED")
        # An allowed caller has until the deadline of the contract to send the message.
        calls = [self.channel("auth").stream_unary(f"/{SERVICE}/Slow").future(nothing()) for _ in range(20)]
        for call in calls:
            self.assertEqual(reason_of(call.exception(20)), "DEADLINE_EXCEEDED")
        self.assertEqual(self.call("auth", "ForAny"), "hello")
        with self.assertRaises(grpc.RpcError) as caught:
            self.channel("auth").stream_unary(f"/{SERVICE}/ForAny")(iter([]), timeout=10)
        self.assertEqual(reason_of(caught.exception), "INVALID_REQUEST")

    def test_the_user_must_hold_the_permission(self):
        self.call("edge", "ForManager", token=self.signer.token(perms=["a:b", "things:manage"]))
        for permissions in ([], ["things:managed"], ["things"]):
            error = self.refused("PERMISSION_MISSING", "edge", "ForManager", token=self.signer.token(perms=permissions))
            self.assertEqual(error.code(), CODES.PERMISSION_DENIED)

    def test_the_sign_in_must_be_recent(self):
        at = int(time.time())
        self.call("edge", "ForRecent", token=self.signer.token(auth_time=at - 290))
        old = self.signer.token(auth_time=at - 310)
        error = self.refused("REAUTHENTICATION_REQUIRED", "edge", "ForRecent", token=old)
        self.assertEqual(metadata_of(error), {"max_age": "300"})

    def test_the_factors_must_have_been_proved(self):
        for amr, has_two, is_phishing_resistant in (
            ([], False, False),
            (["pwd", "otp"], False, False),
            (["pwd", "otp", "mfa"], True, False),
            (["hwk"], False, False),
            (["hwk", "mfa"], True, True),
            (["swk", "mfa"], True, True),
        ):
            token = self.signer.token(amr=amr)
            for method, is_allowed in (("ForTwoFactors", has_two), ("ForPasskey", is_phishing_resistant)):
                with self.subTest(f"{method} with {amr}"):
                    if is_allowed:
                        self.call("edge", method, token=token)
                    else:
                        error = self.refused("FACTORS_REQUIRED", "edge", method, token=token)
                        self.assertEqual(error.code(), CODES.UNAUTHENTICATED)
        old = int(time.time()) - 310
        error = self.refused("FACTORS_REQUIRED", "edge", "ForTwoFactors", token=self.signer.token(auth_time=old))
        self.assertEqual(metadata_of(error), {"acr_values": "mfa", "max_age": "300"})
        error = self.refused("FACTORS_REQUIRED", "edge", "ForPasskey", token=self.signer.token())
        self.assertEqual(metadata_of(error), {"acr_values": "phr"})
        proved = self.signer.token(auth_time=old, amr=["pwd", "otp", "mfa"])
        self.refused("REAUTHENTICATION_REQUIRED", "edge", "ForTwoFactors", token=proved)
        # The operator needs none, unless a token says for whom it acts.
        self.assertEqual(self.call("operator", "ForTwoFactors"), "hello")
        self.refused("FACTORS_REQUIRED", "operator", "ForTwoFactors", token=self.signer.token())

    def test_a_refusal_carries_its_reason_as_error_info(self):
        status = rpc_status.from_call(self.refused("CALLER_NOT_ALLOWED", "user", "ForAuth"))
        info = error_details_pb2.ErrorInfo()
        self.assertTrue(status.details[0].Unpack(info))
        self.assertEqual((info.reason, info.domain), ("CALLER_NOT_ALLOWED", "drystone"))
        self.assertIn("spiffe://drystone.local/service/user", status.message)
        self.assertIn("auth", status.message)

    def test_handlers_refuse_with_their_own_reasons(self):
        error = self.refused("THING_NOT_FOUND", "auth", "ForAny", "fail")
        self.assertEqual(error.code(), CODES.NOT_FOUND)
        error = self.refused(None, "auth", "ForAny", "abort")
        self.assertEqual((error.code(), error.details()), (CODES.NOT_FOUND, "aborted"))

    def test_a_handler_exception_is_internal_without_details(self):
        error = self.refused("INTERNAL", "auth", "ForAny", "crash")
        self.assertNotIn("secret", error.details())
        self.assertIn("a secret of the handler", self.lines.wait_for(message="the handler failed")["exception"])

    def test_client_metadata_is_accepted_only_from_entry_points(self):
        given = [("x-request-id", "abc-1"), ("x-drystone-client-address", "192.0.2.1"), ("x-drystone-client-agent", "curl")]
        self.call("edge", "ForUser", token=self.signer.token(), metadata=given)
        call = self.things.served[-1]
        self.assertEqual((call.request_id, call.client_address, call.client_agent), ("abc-1", "192.0.2.1", "curl"))
        self.assertIn(("x-request-id", "abc-1"), call.metadata())
        self.assertEqual([key for key, _ in call.metadata(for_user=True)], ["x-request-id", "authorization"])
        self.call("user", "ForUser", token=self.signer.token(), metadata=[("x-request-id", "a b"), *given[1:]])
        call = self.things.served[-1]
        self.assertEqual((call.client_address, call.client_agent), ("", ""))
        self.assertRegex(call.request_id, "^[0-9a-f]{32}$")

    def test_calls_are_logged_without_their_token(self):
        claims = support.claims()
        token = self.signer.sign(claims)
        self.call("edge", "ForUser", token=token, metadata=[("x-request-id", "audited-1")])
        line = self.lines.wait_for(message="audited call", request_id="audited-1")
        self.assertEqual((line["code"], line["user"], line["target"]), ("OK", claims["sub"], "drystone.audit"))
        self.assertEqual(line["caller"], "spiffe://drystone.local/service/edge")
        self.refused("TOKEN_INVALID", "edge", "ForUser", token=f"{token}x", metadata=[("x-request-id", "audited-2")])
        line = self.lines.wait_for(message="audited call", request_id="audited-2")
        self.assertEqual(line["code"], "UNAUTHENTICATED")
        line = self.lines.wait_for(message="call denied", request_id="audited-2")
        self.assertEqual((line["rule"], line["reason"]), ("subject", "TOKEN_INVALID"))
        self.refused("CALLER_NOT_ALLOWED", "user", "ForAuth", metadata=[("x-request-id", "audited-3")])
        self.assertEqual(self.lines.wait_for(message="audited call", request_id="audited-3")["code"], "PERMISSION_DENIED")
        for part in token.split("."):
            self.assertFalse([text for text in self.lines.texts if part in text])

    def test_every_workload_may_call_the_health_service(self):
        for workload in support.WORKLOADS:
            stub = health_pb2_grpc.HealthStub(self.channel(workload))
            for name in ("", SERVICE):
                answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="unknown"), timeout=10)
            self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            watch.cancel()

    def test_health_watchers_occupy_no_threads(self):
        stub = health_pb2_grpc.HealthStub(self.channel("operator"))
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(150)]
        self.assertTrue(all(next(watch).status == health_pb2.HealthCheckResponse.SERVING for watch in watches))
        self.assertEqual(self.call("auth", "ForAny"), "hello")
        for watch in watches:
            watch.cancel()


if __name__ == "__main__":
    unittest.main()
