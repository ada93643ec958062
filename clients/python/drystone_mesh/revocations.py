"""Revocations, received through `SessionService/WatchRevocations`."""

from __future__ import annotations

import datetime
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from .backoff import Backoff

_LOG = logging.getLogger("drystone.revocations")

#: A view that has received nothing for this many seconds is stale; the session service sends a heartbeat every 2 s.
FRESH_FOR = 10.0
_DEFAULT_RETENTION = datetime.timedelta(days=1)
#: How long a revocation is kept after its tokens have expired, for clock skew.
_CLOCK_SKEW = datetime.timedelta(seconds=10)
_SWEEP_INTERVAL = datetime.timedelta(seconds=60)
#: How many withdrawn signing keys are kept at most; of more, the first ones are forgotten.
_MAX_KEYS = 1000
_MAX_TIME = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class RevocationView:
    """The revocations that this process has received. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        #: Revoked sessions, and when each entry can be removed.
        self._sessions: dict[uuid.UUID, datetime.datetime] = {}
        #: Users whose tokens issued up to the first time are revoked, and when the entry can be removed.
        self._users: dict[uuid.UUID, tuple[datetime.datetime, datetime.datetime]] = {}
        #: The same by role, for all users who have it.
        self._roles: dict[str, tuple[datetime.datetime, datetime.datetime]] = {}
        #: The same for all tokens, of revocations of a kind that this release does not know.
        self._unknown: tuple[datetime.datetime, datetime.datetime] | None = None
        #: Signing keys whose tokens are refused, for as long as the process runs; a dict, for its order.
        self._keys: dict[str, None] = {}
        self._key_revoked: float | None = None
        self._next_sweep = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self.last_heard: float | None = None

    def apply(self, revocations: Iterable[Any]) -> None:
        """Applies revocations. When this returns, every affected token is refused."""
        now = self._now()
        with self._lock:
            for revocation in revocations:
                self._apply_one(revocation, now)
            self._sweep(now)
        self.last_heard = self._monotonic()

    def is_revoked(
        self, user_id: uuid.UUID, session_id: uuid.UUID, issued_at: datetime.datetime, roles: Iterable[str] = ()
    ) -> bool:
        """Whether a token of this user and session, with these roles and issued at this time, has been revoked."""
        with self._lock:
            entries = [self._unknown, self._users.get(user_id), *(self._roles.get(role) for role in roles)]
            return session_id in self._sessions or any(entry and issued_at <= entry[0] for entry in entries)

    def is_key_revoked(self, key_id: str) -> bool:
        """Whether all tokens of this signing key have been revoked."""
        with self._lock:
            return key_id in self._keys

    @property
    def was_key_revoked_lately(self) -> bool:
        """Whether a signing key was revoked within the last 10 seconds, so that its successor may not be known yet."""
        return self._key_revoked is not None and self._monotonic() - self._key_revoked < FRESH_FOR

    @property
    def is_fresh(self) -> bool:
        """Whether a message of the session service was received within the last 10 seconds."""
        return self.last_heard is not None and self._monotonic() - self.last_heard < FRESH_FOR

    def __len__(self) -> int:
        with self._lock:
            return len(self._sessions) + len(self._users) + len(self._roles) + (self._unknown is not None)

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)

    def _apply_one(self, revocation: Any, now: datetime.datetime) -> None:
        expires = _time(revocation, "expire_time") or now + _DEFAULT_RETENTION
        remove_at = expires + _CLOCK_SKEW if expires < _MAX_TIME - _CLOCK_SKEW else expires
        scope = revocation.WhichOneof("scope")
        if scope == "session_id":
            if session_id := _id(revocation.session_id):
                self._sessions[session_id] = max(remove_at, self._sessions.get(session_id, remove_at))
        elif scope == "user_tokens":
            if user_id := _id(revocation.user_tokens.user_id):
                revoked_until = _time(revocation.user_tokens, "before_time") or now
                self._users[user_id] = _merged(self._users.get(user_id), (revoked_until, remove_at))
        elif scope == "role_tokens":
            role, revoked_until = revocation.role_tokens.role, _time(revocation.role_tokens, "before_time") or now
            self._roles[role] = _merged(self._roles.get(role), (revoked_until, remove_at))
        elif scope == "key_id":
            if revocation.key_id not in self._keys:
                self._key_revoked = self._monotonic()
            self._keys[revocation.key_id] = None
            if len(self._keys) > _MAX_KEYS:
                del self._keys[next(iter(self._keys))]
        else:
            _LOG.warning("a revocation of a kind that this release does not know revokes all earlier tokens")
            self._unknown = _merged(self._unknown, (now, remove_at))

    def _sweep(self, now: datetime.datetime) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_INTERVAL
        self._sessions = {session: at for session, at in self._sessions.items() if at > now}
        self._users = {user: entry for user, entry in self._users.items() if entry[1] > now}
        self._roles = {role: entry for role, entry in self._roles.items() if entry[1] > now}
        if self._unknown is not None and self._unknown[1] <= now:
            self._unknown = None


def _merged(
    entry: tuple[datetime.datetime, datetime.datetime] | None, other: tuple[datetime.datetime, datetime.datetime]
) -> tuple[datetime.datetime, datetime.datetime]:
    return other if entry is None else (max(entry[0], other[0]), max(entry[1], other[1]))


def _id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        _LOG.warning("revocation without a valid id ignored")
        return None


def _time(message: Any, name: str) -> datetime.datetime | None:
    if not message.HasField(name):
        return None
    value = getattr(message, name)
    try:
        whole = datetime.datetime.fromtimestamp(value.seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return _MAX_TIME if value.seconds > 0 else None
    return whole.replace(microsecond=min(max(value.nanos, 0) // 1000, 999_999))


class RevocationWatcher:
    """Watches the revocations of one session service address, and acknowledges them after applying them.

    A revoking call waits for the acknowledgement, so when it returns no revoked token is accepted here.
    """

    def __init__(
        self,
        view: RevocationView,
        messages: Any,
        channel: Callable[[], grpc.Channel],
        *,
        idle_timeout: float = FRESH_FOR,
    ) -> None:
        self._view = view
        self._channel = channel
        self._idle_timeout = idle_timeout
        self._request = messages.get("drystone.session.v1.WatchRevocationsRequest")
        self._response = messages.get("drystone.session.v1.WatchRevocationsResponse")
        self._stop = threading.Event()
        self._cursor = 0
        self._backoff = Backoff(0.05, 0.25)
        self._call: Any = None
        self._received = time.monotonic()
        self._threads = [
            threading.Thread(target=target, name="drystone-revocations", daemon=True)
            for target in (self._run, self._watch_for_idleness)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        if (call := self._call) is not None:
            call.cancel()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
                error: Exception | None = None
            except Exception as failure:  # any error is retried from the same cursor
                error = failure
            self._call = None
            delay = self._backoff.failed()
            if self._backoff.is_lasting and not self._view.is_fresh:
                fields = {"cursor": self._cursor, "error": _text(error)}
                _LOG.warning("revocations are not received", extra={"fields": fields})
            self._stop.wait(delay)

    def _listen(self) -> None:
        """Reads one stream to its end."""
        acknowledgements = _Latest(self._request(cursor=self._cursor))
        stub = self._channel().stream_stream(
            "/drystone.session.v1.SessionService/WatchRevocations",
            request_serializer=self._request.SerializeToString,
            response_deserializer=self._response.FromString,
        )
        self._received = time.monotonic()
        call = stub(iter(acknowledgements))
        self._call = call
        try:
            if self._stop.is_set():
                return
            for answer in call:
                self._received = time.monotonic()
                self._view.apply(answer.revocations)
                self._backoff.succeeded()
                if answer.cursor < self._cursor:
                    # The server has lost its history and restarted its cursor: read from the beginning.
                    self._cursor = 0
                    return
                self._cursor = answer.cursor
                acknowledgements.put(self._request(cursor=self._cursor))
        finally:
            call.cancel()
            acknowledgements.close()

    def _watch_for_idleness(self) -> None:
        """Cancels a stream that has received nothing for the idle timeout."""
        while not self._stop.wait(self._idle_timeout / 10):
            call = self._call
            if call is not None and time.monotonic() - self._received >= self._idle_timeout:
                call.cancel()


class _Latest:
    """An iterator over the most recent message. Acknowledgements are cumulative, so older ones can be skipped."""

    def __init__(self, first: Any) -> None:
        self._condition = threading.Condition()
        self._next: Any = first
        self._closed = False

    def put(self, message: Any) -> None:
        with self._condition:
            self._next = message
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._next is not None)
                if self._closed:
                    return
                message, self._next = self._next, None
            yield message


def _text(error: Exception | None) -> str:
    if error is None:
        return "the stream has ended"
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else repr(error)
