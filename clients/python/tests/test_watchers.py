"""Key and revocation watchers over real mutual TLS."""

import time
import unittest
import uuid

import grpc
from mesh import CODES, MeshTest
import support

from drystone_mesh import keys, reason_of, revocations


class WatchTest(MeshTest):
    def test_a_revoked_session_is_refused_immediately(self):
        claims = support.claims()
        token = self.signer.sign(claims)
        self.call("edge", "ForUser", token=token)
        self.session.revoke_session(claims["sid"])
        error = self.refused("TOKEN_REVOKED", "edge", "ForUser", token=token)
        self.assertEqual(error.code(), CODES.UNAUTHENTICATED)

    def test_the_tokens_of_a_user_are_refused_up_to_before_time(self):
        claims = support.claims(time.time() - 10)
        self.session.revoke(user_tokens={"user_id": claims["sub"], "before_time": support.now()})
        self.refused("TOKEN_REVOKED", "edge", "ForUser", token=self.signer.sign(claims))
        self.call("edge", "ForUser", token=self.signer.token(time.time() + 1, sub=claims["sub"]))

    def test_a_reconnect_resumes_from_the_cursor(self):
        self.session.revoke_session(str(uuid.uuid4()))
        cursor = len(self.session.history)
        self.session.acknowledged.clear()
        self.session.break_streams()
        self.assertTrue(self.session.wait_for(lambda all: ("first", cursor) in all), self.session.acknowledged)
        self.session.revoke_session(str(uuid.uuid4()))

    def test_a_smaller_cursor_restarts_from_zero(self):
        self.session.revoke_session(str(uuid.uuid4()))
        self.session.lose_history()
        self.assertTrue(self.session.wait_for(lambda all: ("first", 0) in all), self.session.acknowledged)
        self.session.revoke_session(str(uuid.uuid4()))

    def test_an_unknown_kid_fetches_keys_at_a_limited_rate(self):
        new = support.Signer("key-2")
        self.auth.signers.append(new)
        fetches, ends = self.auth.fetches, time.monotonic() + 20
        started = time.monotonic()
        while True:
            try:
                self.call("edge", "ForUser", token=new.token())
                break
            except grpc.RpcError as error:
                self.assertEqual(reason_of(error), "TOKEN_INVALID")
                self.assertLess(time.monotonic(), ends)
                time.sleep(0.02)
        self.assertLessEqual(self.auth.fetches - fetches, 1 + (time.monotonic() - started) / keys.MIN_REFRESH_INTERVAL)

    def test_keys_and_revocations_are_fetched_as_this_workload(self):
        self.assertTrue(any(b"things" in name for name in self.auth.callers), self.auth.callers)


class WatcherTest(unittest.TestCase):
    """The watchers alone, with shorter intervals."""

    def setUp(self):
        self.ca = support.Authority()
        self.session, self.auth = support.SessionService(), support.AuthService([support.Signer()])
        server, self.address = support.start_server(self.ca, "session", self.session, self.auth)
        self.addCleanup(lambda: server.stop(0).wait())
        self.channel = self.ca.channel(self.address, "session", self.ca.issue("things"))
        self.addCleanup(self.channel.close)

    def test_an_idle_stream_is_reopened(self):
        self.session.heartbeats = False
        view = revocations.RevocationView()
        watcher = revocations.RevocationWatcher(view, support.platform(), lambda: self.channel, idle_timeout=0.3)
        watcher.start()
        self.addCleanup(watcher.stop)
        count = lambda all: sum(kind == "first" for kind, _ in all)  # noqa: E731
        self.assertTrue(self.session.wait_for(lambda all: count(all) >= 3))

    def test_a_response_without_usable_keys_leaves_the_keys(self):
        key_set = keys.KeySet()
        watcher = keys.KeyWatcher(key_set, support.platform(), lambda: self.channel, interval=0.05, min_interval=0.01)
        watcher.start()
        self.addCleanup(watcher.stop)
        self.wait(lambda: key_set.is_loaded)
        self.auth.signers.clear()
        fetches = self.auth.fetches
        self.wait(lambda: self.auth.fetches >= fetches + 3)
        self.assertTrue(key_set.is_loaded)
        self.auth.signers.append(support.Signer("later"))
        self.wait(lambda: key_set.get("later"))

    def wait(self, condition):
        ends = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), ends)
            time.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
