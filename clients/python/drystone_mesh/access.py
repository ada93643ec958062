"""Authorization: enforces the access rules of the contract before a handler runs.

Calls that no rule allows are denied. `AccessInterceptor.authorize` has the checks in order.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from .call import Call, set_current
from .contract import Factors, Method, Subject
from .errors import Failure
from .identity import Identity, IdentityError, Svid, peer_svid
from .tokens import Principal, TokenError, Verifier

_ACCESS = logging.getLogger("drystone.access")
_AUDIT = logging.getLogger("drystone.audit")
#: grpcio reports "no deadline" as a time in the far future.
_NO_DEADLINE = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Durations are in seconds."""

    #: Maximum concurrent calls; further ones are answered OVERLOADED.
    in_flight: int = 64
    #: Deadline of a unary call without one from the caller or the contract.
    default_deadline: float = 30.0
    #: Maximum deadline of a unary call, unless the contract sets one.
    max_deadline: float = 60.0


class Denial(Exception):
    """A call that its rule does not allow: the part of the rule that failed, and the failure to return."""

    def __init__(self, part: str, failure: Failure) -> None:
        super().__init__(part)
        self.part = part
        self.failure = failure


def authorize_caller(rule: Method, caller: Svid, trust_domain: str, now: float) -> None:
    """Raises `Denial` unless the caller is in the rule and in the trust domain, and its certificate is valid now."""
    if not caller.is_valid_at(now):
        text = f"the certificate of {caller.id} is not valid at this time; connect again with a new one"
        raise Denial("caller", Failure("CALLER_EXPIRED", text))
    name = caller.id.workload if caller.id.trust_domain == trust_domain else None
    if name is None or not rule.allows(name):
        text = f"{caller.id} may not call {rule.path}; its rule allows {', '.join(rule.callers)}"
        raise Denial("caller", Failure("CALLER_NOT_ALLOWED", text))


def authorize_user(rule: Method, principal: Principal, now: float) -> None:
    """Raises `Denial` unless the user holds the permission of the rule, and has proved its factors recently enough."""
    if rule.permission is not None and not principal.has_permission(rule.permission):
        text = f"the call needs the permission `{rule.permission}`, which the signed-in user does not hold"
        raise Denial("permission", Failure("PERMISSION_MISSING", text))
    # Before the age, which a step-up to the factors renews as well.
    if rule.factors is not None and not _has_proved(principal, rule.factors):
        text = (
            "the call needs two factors; verify a code or a passkey (POST /v1/auth/verify) and refresh, "
            "or sign in with them"
            if rule.factors is Factors.TWO
            else "the call needs a passkey; verify one (POST /v1/auth/verify) and refresh, or sign in with one"
        )
        raise Denial("factors", Failure("FACTORS_REQUIRED", text, metadata=_step_up(rule)))
    if rule.max_auth_age is not None and now - principal.auth_time.timestamp() > rule.max_auth_age:
        text = (
            f"the call needs an authentication within the last {rule.max_auth_age:.0f} s; "
            "verify a credential (POST /v1/auth/verify) and refresh, or sign in again"
        )
        raise Denial("max_auth_age", Failure("REAUTHENTICATION_REQUIRED", text, metadata=_step_up(rule)))


def _has_proved(principal: Principal, factors: Factors) -> bool:
    """Whether the user has proved who they are with these factors (RFC 8176, section 2)."""
    has_key = principal.has_used("hwk") or principal.has_used("swk")
    return principal.has_used("mfa") and (factors is Factors.TWO or has_key)


def _step_up(rule: Method) -> dict[str, str]:
    """The authentication that the rule requires, of which an entry point makes a challenge (RFC 9470)."""
    metadata = {}
    if rule.factors is not None:
        metadata["acr_values"] = rule.factors.acr
    if rule.max_auth_age is not None:
        metadata["max_age"] = str(min(int(rule.max_auth_age), 9_999_999_999))
    return metadata


def bearer_token(metadata: Iterable[tuple[str, Any]]) -> tuple[str, str]:
    """The `authorization` value and its Bearer token (RFC 6750, section 2.1). Raises `Failure`."""
    values = [value for key, value in metadata if key == "authorization"]
    if not values:
        text = "the call needs an access token; send it as `authorization: Bearer TOKEN`"
        raise Failure("TOKEN_MISSING", text)
    if len(values) > 1:
        raise Failure("TOKEN_INVALID", "send one `authorization` header, not several")
    value = values[0]
    scheme, space, token = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if scheme.lower() != "bearer" or not space:
        raise Failure("TOKEN_INVALID", "send the access token as `authorization: Bearer TOKEN`")
    return value, token.lstrip(" ")


class AccessInterceptor(grpc.ServerInterceptor):
    """Passes a call to its handler if its rule allows it; otherwise answers with `google.rpc.Status`.

    The request message is received after authorization, so a denied caller cannot occupy a thread by sending nothing.
    Unary handlers run in a separate pool, so a call is answered at its deadline although its handler is still running.
    """

    def __init__(
        self,
        rules: Mapping[str, Method],
        identity: Identity,
        verifier: Verifier,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = dict(rules)
        self._identity = identity
        self._verifier = verifier
        self._limits = limits
        self._clock = clock
        self._permits = threading.BoundedSemaphore(limits.in_flight)
        self._streams: set[grpc.ServicerContext] = set()
        self._pool = futures.ThreadPoolExecutor(limits.in_flight, thread_name_prefix="drystone-handler")

    def stop_streams(self) -> None:
        """Cancels open streams, which could otherwise keep the server from stopping."""
        for context in list(self._streams):
            context.cancel()

    def close(self) -> None:
        """Shuts the handler pool down without waiting for running handlers."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        rule = self._rules.get(handler_call_details.method)
        handler = continuation(handler_call_details) if rule else None
        if rule is None or handler is None:
            return grpc.stream_stream_rpc_method_handler(_refuse_unknown)
        return self._guard(rule, handler)

    def authorize(self, rule: Method, context: grpc.ServicerContext, record: _Record) -> Call:
        """Authorizes a call; the cheapest checks come first. Raises `Denial` or `Failure`."""
        now = self._clock()
        metadata = context.invocation_metadata()
        # The caller is checked first, so a denied workload learns nothing else.
        try:
            caller = peer_svid(context.auth_context())
        except IdentityError as error:
            raise Denial("caller", Failure("CALLER_UNIDENTIFIED", f"the caller has no identity: {error}")) from error
        call = Call.of(metadata, caller.id, self._identity.trust_domain)
        record.call = call
        authorize_caller(rule, caller, self._identity.trust_domain, now)
        if not self._identity.current().svid.is_valid_at(now):
            raise Failure("UNAVAILABLE", "the certificate of this service has expired; try again shortly", retry_after=1)
        # Capacity is checked before token verification, which is expensive.
        if not self._permits.acquire(blocking=False):
            raise Failure("OVERLOADED", "too many concurrent calls; try again shortly", retry_after=1)
        record.has_permit = True
        # The operator needs no token where the rule says so; one that is sent is verified.
        is_optional = rule.subject is Subject.USER_OR_OPERATOR and caller.id.workload == "operator"
        is_sent = any(key == "authorization" for key, _ in metadata)
        if rule.subject is not Subject.NONE and (is_sent or not is_optional):
            try:
                call.authorization, token = bearer_token(metadata)
                call.principal = self._verifier.verify(token)
            except (Failure, TokenError) as error:
                raise Denial("subject", error if isinstance(error, Failure) else error.to_failure()) from error
            if rule.fresh_revocations and not self._verifier.revocations.is_fresh:
                text = "this server cannot tell whether the session has ended; try again shortly"
                raise Denial("fresh_revocations", Failure("UNAVAILABLE", text, retry_after=1))
            authorize_user(rule, call.principal, now)
        return call

    def _guard(self, rule: Method, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        deserialize = handler.request_deserializer or bytes

        def request_of(messages: Iterator[bytes]) -> Any:
            if handler.request_streaming:
                return map(deserialize, messages)
            message = next(messages, None)
            if message is None:
                raise Failure("INVALID_REQUEST", "the call has no message")
            return deserialize(message)

        def request_with_timeout(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            """The request of a streaming call, which has no server-side deadline."""
            if handler.request_streaming:
                return request_of(messages)
            timer = threading.Timer(self._limits.default_deadline, context.cancel)
            timer.start()
            try:
                return request_of(messages)
            finally:
                timer.cancel()

        def authorize(context: grpc.ServicerContext) -> tuple[_Record, Call]:
            record = _Record(rule, context)
            try:
                return record, self.authorize(rule, context, record)
            except Denial as denial:
                record.denied(denial)
                self._release(record)
                record.fail(denial.failure)
            except Failure as failure:
                self._release(record)
                record.fail(failure)
            except Exception:
                self._release(record)
                record.crash()

        def unary_response(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            record, call = authorize(context)

            def run() -> Any:
                try:
                    set_current(call)
                    return behavior(request_of(messages), context)
                finally:
                    self._release(record)

            return record.settle(lambda: self._within_deadline(rule, context, run, record))

        def stream_response(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            record, call = authorize(context)
            if not self._track_stream(record, context):
                return
            variables = contextvars.copy_context()
            variables.run(set_current, call)
            responses = record.settle(
                lambda: variables.run(lambda: iter(behavior(request_with_timeout(messages, context), context))), last=False
            )
            while True:
                response = record.settle(lambda: variables.run(next, responses, _END), last=False)
                if response is _END:
                    record.code = grpc.StatusCode.OK
                    return
                yield response

        def pushed_response(messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            """For non-blocking handlers, such as Watch of the health service."""
            record, _ = authorize(context)
            if not self._track_stream(record, context):
                return
            request = record.settle(lambda: request_with_timeout(messages, context), last=False)
            # The stream uses no thread until it sends, so it does not count as a concurrent call.
            self._release(record)
            record.settle(lambda: behavior(request, context, send))

        if not handler.response_streaming:
            guarded: Any = unary_response
        elif getattr(behavior, "experimental_non_blocking", False):
            pushed_response.experimental_non_blocking = True  # type: ignore[attr-defined]
            guarded = pushed_response
        else:
            guarded = stream_response
        # On the wire a unary request is a stream of one message.
        streaming = handler.response_streaming
        make = grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler
        return make(guarded, request_deserializer=None, response_serializer=handler.response_serializer)

    def _within_deadline(self, rule: Method, context: grpc.ServicerContext, run: Callable[[], Any], record: _Record) -> Any:
        requested = context.time_remaining()
        requested = None if requested is None or requested > _NO_DEADLINE else requested
        timeout = unary_timeout(rule, self._limits, requested)
        try:
            future = self._pool.submit(contextvars.Context().run, run)
        except RuntimeError as error:
            self._release(record)
            raise Failure("UNAVAILABLE", "the server is stopping; try again shortly", retry_after=1) from error
        try:
            return future.result(timeout)
        except futures.TimeoutError:
            if future.done():
                raise
            if future.cancel():
                self._release(record)
            raise Failure("DEADLINE_EXCEEDED", "the deadline was exceeded") from None

    def _track_stream(self, record: _Record, context: grpc.ServicerContext) -> bool:
        """Tracks a stream until it ends. Returns whether it is still active."""

        def ended() -> None:
            self._streams.discard(context)
            self._release(record)

        self._streams.add(context)
        is_active = context.add_callback(ended)
        if not is_active:
            ended()
        return is_active

    def _release(self, record: _Record) -> None:
        if record.take_permit():
            self._permits.release()


def unary_timeout(rule: Method, limits: Limits, requested: float | None) -> float | None:
    """The deadline of a call in seconds, limited by contract and server. None (streams only): no deadline."""
    if rule.client_streaming or rule.server_streaming:
        return requested
    longest = rule.max_deadline if rule.max_deadline is not None else limits.max_deadline
    default = rule.default_deadline if rule.default_deadline is not None else limits.default_deadline
    return min(longest, default if requested is None else requested)


_END = object()


def _refuse_unknown(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
    text = "no such RPC; `drystone access show` lists all RPCs"
    context.abort_with_status(Failure("METHOD_UNKNOWN", text).to_status())
    raise AssertionError("abort_with_status has returned")


class _Record:
    """The log and audit record of one call, written when it ends."""

    def __init__(self, rule: Method, context: grpc.ServicerContext) -> None:
        self.call: Call | None = None
        self.code = grpc.StatusCode.CANCELLED
        self.has_permit = False
        self._lock = threading.Lock()
        self._rule = rule
        self._context = context
        if rule.audit is not None and not context.add_callback(self._audit):
            self._audit()

    def take_permit(self) -> bool:
        """Whether the call holds a permit. Returns True only once."""
        with self._lock:
            had, self.has_permit = self.has_permit, False
            return had

    def settle(self, work: Callable[[], Any], *, last: bool = True) -> Any:
        """Runs a part of the handler and maps its exceptions to the status of the call."""
        try:
            result = work()
        except Failure as failure:
            self.fail(failure)
        except DecodeError:
            self.fail(Failure("INVALID_REQUEST", "the message cannot be decoded"))
        except NotImplementedError:
            self.fail(Failure("METHOD_UNKNOWN", "the RPC is not implemented here"))
        except Exception as error:
            if not self._context.is_active():
                # The call was cancelled, and the handler fails for this reason.
                raise
            code = _code_of(self._context)
            if type(error) is Exception and not error.args and code is not None:
                # Raised by `context.abort`, which has set the status.
                self.code = code
                raise
            self.crash()
        if last:
            self.code = _code_of(self._context) or grpc.StatusCode.OK
        return result

    def fail(self, failure: Failure) -> NoReturn:
        self.code = failure.code
        self._context.abort_with_status(failure.to_status())
        raise AssertionError("abort_with_status has returned")

    def crash(self) -> NoReturn:
        """Answers INTERNAL without details; the log has the exception."""
        _ACCESS.exception("the handler failed", extra={"fields": self._fields()})
        self.fail(Failure("INTERNAL", "internal error; the server log has details under this request id"))

    def denied(self, denial: Denial) -> None:
        fields = {**self._fields(), "rule": denial.part, "reason": denial.failure.reason}
        _ACCESS.warning("call denied", extra={"fields": fields})

    def _audit(self) -> None:
        fields = {**self._fields(), "code": self.code.name}
        _AUDIT.info("audited call", extra={"fields": fields})

    def _fields(self) -> dict[str, str]:
        fields = {"method": self._rule.path, "remote": self._context.peer()}
        if self.call is not None:
            fields |= {"caller": str(self.call.caller), "request_id": self.call.request_id}
            fields |= {"client": self.call.client_address} if self.call.client_address else {}
            if self.call.principal is not None:
                fields["user"] = str(self.call.principal.user_id)
        return fields


def _code_of(context: grpc.ServicerContext) -> grpc.StatusCode | None:
    code = context.code()
    if isinstance(code, int):
        return next((known for known in grpc.StatusCode if known.value[0] == code), grpc.StatusCode.UNKNOWN)
    return code if isinstance(code, grpc.StatusCode) else None
