"""The revocation view, by example and against a list-based model."""

import datetime
import random
import unittest
import uuid

import support

from drystone_mesh.revocations import FRESH_FOR, RevocationView

NOW = 1_900_000_000.0


def at(seconds):
    return datetime.datetime.fromtimestamp(NOW + seconds, datetime.UTC)


def revocation(*, ends=3600, before=None, **scope):
    message = support.platform().get("drystone.session.v1.Revocation")(**scope)
    if ends is not None:
        message.expire_time.FromDatetime(at(ends))
    if before is not None:
        message.user_tokens.before_time.FromDatetime(at(before))
    return message


def session(session_id, **options):
    return revocation(session_id=str(session_id), **options)


def tokens(user_id, before, **options):
    return revocation(user_tokens={"user_id": str(user_id)}, before=before, **options)


class RevocationViewTest(unittest.TestCase):
    def setUp(self):
        self.seconds = 0.0
        self.view = RevocationView(lambda: NOW + self.seconds, lambda: self.seconds)
        self.users = [uuid.uuid4() for _ in range(4)]
        self.sessions = [uuid.uuid4() for _ in range(4)]

    def is_revoked(self, index, issued=0):
        return self.view.is_revoked(self.users[index], self.sessions[index], at(issued))

    def test_only_revoked_tokens_are_refused(self):
        self.view.apply([session(self.sessions[0]), tokens(self.users[1], 0)])
        self.assertEqual([self.is_revoked(index) for index in range(3)], [True, True, False])
        self.assertFalse(self.is_revoked(1, 0.001))
        self.assertTrue(self.is_revoked(0, 1000))

    def test_only_expired_revocations_are_removed(self):
        self.view.apply([session(self.sessions[0], ends=60), tokens(self.users[1], 0, ends=7200)])
        for seconds, length in ((61, 2), (130, 1), (7000, 1), (7300, 0)):
            self.seconds = seconds
            self.view.apply([])
            self.assertEqual(len(self.view), length, seconds)

    def test_invalid_revocations_are_ignored_and_the_rest_applied(self):
        with self.assertLogs("drystone.revocations", "WARNING"):
            self.view.apply(
                [revocation(session_id="x"), revocation(user_tokens={}), session(self.sessions[0], ends=None)]
            )
        self.assertTrue(self.is_revoked(0))
        self.assertEqual(len(self.view), 1)

    def test_a_revoked_role_revokes_the_earlier_tokens_of_all_who_have_it(self):
        role = revocation(role_tokens={"role": "manager"}, ends=60)
        role.role_tokens.before_time.FromDatetime(at(0))
        self.view.apply([role])
        for roles, issued, expected in (
            (["member", "manager"], 0, True),
            (["manager"], 1, False),
            (["managers"], 0, False),
            ([], 0, False),
        ):
            is_revoked = self.view.is_revoked(self.users[0], self.sessions[0], at(issued), roles)
            self.assertEqual(is_revoked, expected, (roles, issued))
        self.seconds = 130
        self.view.apply([])
        self.assertEqual(len(self.view), 0)

    def test_a_revoked_key_revokes_all_its_tokens_for_as_long_as_the_process_runs(self):
        self.view.apply([revocation(key_id="key-1", ends=60)])
        for seconds in (0, 86_400 * 60):
            self.seconds = seconds
            self.view.apply([])
            self.assertTrue(self.view.is_key_revoked("key-1"))
            self.assertFalse(self.view.is_key_revoked("key-2") or self.view.is_key_revoked(""))
            self.assertEqual(self.view.was_key_revoked_lately, seconds == 0)
        self.view.apply([revocation(key_id=f"other-{number}") for number in range(1000)])
        self.assertFalse(self.view.is_key_revoked("key-1"))
        self.assertTrue(self.view.is_key_revoked("other-0"))

    def test_a_revocation_of_an_unknown_kind_revokes_every_earlier_token(self):
        with self.assertLogs("drystone.revocations", "WARNING"):
            self.view.apply([revocation(ends=60)])
        self.assertTrue(self.is_revoked(0, 0) and self.is_revoked(1, -1000))
        self.assertFalse(self.is_revoked(0, 1))
        self.seconds = 130
        self.view.apply([])
        self.assertEqual(len(self.view), 0)

    def test_times_beyond_the_calendar_are_kept(self):
        far = session(self.sessions[0], ends=None)
        far.expire_time.seconds = 2**62
        self.view.apply([far])
        self.assertTrue(self.is_revoked(0))

    def test_a_view_is_fresh_for_ten_seconds_after_each_message(self):
        self.assertFalse(self.view.is_fresh)
        self.view.apply([])
        self.seconds = FRESH_FOR - 0.001
        self.assertTrue(self.view.is_fresh)
        self.seconds = FRESH_FOR
        self.assertFalse(self.view.is_fresh)

    def test_the_view_matches_a_list_based_model(self):
        for seed in range(200):
            rng = random.Random(seed)
            view = RevocationView(lambda: NOW, lambda: 0)
            events = [
                (rng.randrange(4), rng.choice([None, rng.randrange(-60, 60)])) for _ in range(rng.randrange(40))
            ]
            for index, before in events:
                view.apply([session(self.sessions[index]) if before is None else tokens(self.users[index], before)])
            for _ in range(20):
                index, issued = rng.randrange(4), rng.randrange(-60, 60)
                expected = any(who == index and (before is None or issued <= before) for who, before in events)
                self.assertEqual(view.is_revoked(self.users[index], self.sessions[index], at(issued)), expected, seed)


if __name__ == "__main__":
    unittest.main()
