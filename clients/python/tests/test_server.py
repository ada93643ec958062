"""Deadlines, limits, startup and shutdown of a server."""

import dataclasses
import threading
import time
import unittest

from google.rpc import error_details_pb2
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from mesh import CODES, SERVICE, MeshTest
import support

from drystone_mesh import Limits, MeshServer, reason_of


class DeadlineTest(MeshTest):
    LIMITS = Limits(in_flight=2, default_deadline=1.0)

    def tearDown(self):
        self.things.release.set()
        deadline = time.monotonic() + 10
        while self.server.access._permits._value < 2:
            self.assertLess(time.monotonic(), deadline, "a permit was not released")
            time.sleep(0.01)
        self.things.release.clear()

    def test_the_deadline_of_the_contract_is_enforced(self):
        for timeout, expected in ((None, 0.2), (60, 0.5)):
            started = time.monotonic()
            error = self.refused("DEADLINE_EXCEEDED", "auth", "Slow", timeout=timeout)
            self.assertEqual(error.code(), CODES.DEADLINE_EXCEEDED)
            self.assertGreaterEqual(time.monotonic() - started, expected)

    def test_a_shorter_deadline_of_the_caller_is_enforced(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.call("auth", "Slow", timeout=0.05)
        self.assertEqual(caught.exception.code(), CODES.DEADLINE_EXCEEDED)

    def test_more_calls_than_the_limit_are_refused_and_not_queued(self):
        stub = self.channel("auth").unary_unary(f"/{SERVICE}/Slow")
        message = self.things.text(text="wait").SerializeToString()
        running = [stub.future(message, timeout=10) for _ in range(2)]
        for call in running:
            # Both calls have exceeded their deadline, and their handlers are still running.
            with self.assertRaises(grpc.RpcError):
                call.result()
        error = self.refused("OVERLOADED", "auth", "ForAny")
        status = rpc_status.from_call(error)
        self.assertTrue(any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details))
        self.things.release.set()

    def test_a_stream_without_its_request_is_ended(self):
        released = threading.Event()
        self.addCleanup(released.set)

        def nothing():
            released.wait(60)
            return
            yield

        token = [("authorization", f"Bearer {self.signer.token()}")]
        for path, workload in ((f"/{SERVICE}/Split", "edge"), ("/grpc.health.v1.Health/Watch", "operator")):
            call = self.channel(workload).stream_stream(path)(nothing(), metadata=token, timeout=30)
            started = time.monotonic()
            with self.assertRaises(grpc.RpcError) as caught:
                next(call)
            self.assertEqual(caught.exception.code(), CODES.CANCELLED)
            self.assertLess(time.monotonic() - started, 10)

    def test_cancelled_streams_release_their_permit(self):
        write, parse = self.things.text.SerializeToString, self.things.text.FromString
        stub = self.channel("auth").stream_stream(f"/{SERVICE}/Echo", write, parse)
        for _ in range(5):
            release = threading.Event()

            def requests(release=release):
                yield self.things.text(text="a")
                release.wait(10)

            call = stub(requests(), timeout=10)
            self.assertEqual(next(call).text, "a")
            call.cancel()
            release.set()
            ends = time.monotonic() + 10
            while self.server.access._permits._value < 2:
                self.assertLess(time.monotonic(), ends)
                time.sleep(0.005)


class StartTest(MeshTest):
    def test_no_token_is_accepted_before_revocations_are_received(self):
        delayed = support.SessionService()
        gate = threading.Event()
        watch = delayed._watch

        def watch_later(requests, context):
            gate.wait(60)
            yield from watch(requests, context)

        delayed._watch = watch_later
        session, address = support.start_server(self.ca, "session", delayed)
        self.addCleanup(lambda: session.stop(0).wait())
        server = MeshServer(dataclasses.replace(self.config, session=address), self.things.add_to)
        self.addCleanup(server.stop, 0)
        self.addCleanup(gate.set)
        server.start()
        ends = time.monotonic() + 20
        while not server.keys.is_loaded:
            self.assertLess(time.monotonic(), ends)
            time.sleep(0.01)

        def channel(workload):
            return self.channels.enter_context(self.ca.channel(server.address, "things", self.credentials[workload]))

        health = health_pb2_grpc.HealthStub(channel("operator"))
        watch_health = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
        self.assertEqual(next(watch_health).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        user = channel("edge").unary_unary(f"/{SERVICE}/ForUser")
        token = [("authorization", f"Bearer {self.signer.token()}")]
        with self.assertRaises(grpc.RpcError) as caught:
            user(b"", metadata=token, timeout=10)
        self.assertEqual(reason_of(caught.exception), "UNAVAILABLE")
        channel("auth").unary_unary(f"/{SERVICE}/ForAny")(b"", timeout=10)
        self.assertFalse(server.wait_until_ready(0))
        gate.set()
        self.assertTrue(server.wait_until_ready(20))
        user(b"", metadata=token, timeout=10)
        self.assertEqual(next(watch_health).status, health_pb2.HealthCheckResponse.SERVING)


class StopTest(MeshTest):
    def test_a_server_with_open_streams_stops_immediately(self):
        stub = health_pb2_grpc.HealthStub(self.channel("operator"))
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        next(watch)
        write = self.things.text.SerializeToString
        echo = self.channel("auth").stream_stream(f"/{SERVICE}/Echo", write, self.things.text.FromString)
        release = threading.Event()

        def requests():
            yield self.things.text(text="a")
            release.wait(30)

        call = echo(requests(), timeout=60)
        self.assertEqual(next(call).text, "a")
        started = time.monotonic()
        self.server.stop(grace=30)
        self.assertLess(time.monotonic() - started, 10)
        for stream in (watch, call):
            with self.assertRaises(grpc.RpcError):
                list(stream)
        release.set()


if __name__ == "__main__":
    unittest.main()
