"""Who may call what: the rules of the contract, applied to each call before its handler runs.

Everything that no rule allows is denied. The checks are those of `AccessInterceptor.authorize`, in order.
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
from .contract import Method, Subject
from .errors import Failure
from .identity import Identity, IdentityError, Svid, peer_svid
from .tokens import Principal, TokenError, Verifier

_ACCESS = logging.getLogger("drystone.access")
_AUDIT = logging.getLogger("drystone.audit")
#: grpcio says "no deadline" as a time in the far future.
_NO_DEADLINE = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Limits:
    """The bounds of a server. Times are in seconds."""

    #: Calls at once; more are answered OVERLOADED.
    in_flight: int = 64
    #: How long a unary call may take when neither the caller nor the contract says.
    default_deadline: float = 30.0
    #: How long a unary call may take at most, unless the contract says.
    max_deadline: float = 60.0


class Denial(Exception):
    """A call that its rule does not allow: the part of the rule that failed, and the answer."""

    def __init__(self, part: str, failure: Failure) -> None:
        super().__init__(part)
        self.part = part
        self.failure = failure


def authorize_caller(rule: Method, caller: Svid, trust_domain: str, now: float) -> None:
    """Raises `Denial` unless the rule lists the workload, it is of our trust domain, and its certificate is in its time."""
    if not caller.is_valid_at(now):
        text = f"the certificate of {caller.id} is not valid at this time; connect again with a new one"
        raise Denial("caller", Failure("CALLER_EXPIRED", text))
    name = caller.id.workload if caller.id.trust_domain == trust_domain else None
    if name is None or not rule.allows(name):
        text = f"{caller.id} may not call {rule.path}; its rule allows {', '.join(rule.callers)}"
        raise Denial("caller", Failure("CALLER_NOT_ALLOWED", text))


def authorize_user(rule: Method, principal: Principal, now: float) -> None:
    """Raises `Denial` unless the user holds the permission of the rule and has signed in recently enough."""
    if rule.permission is not None and rule.permission not in principal.permissions:
        text = f"the call needs the permission `{rule.permission}`, which the signed-in user does not hold"
        raise Denial("permission", Failure("PERMISSION_MISSING", text))
    if rule.max_auth_age is not None and now - principal.auth_time.timestamp() > rule.max_auth_age:
        text = f"the call needs a sign-in within the last {rule.max_auth_age:.0f} s; sign in again"
        raise Denial("max_auth_age", Failure("REAUTHENTICATION_REQUIRED", text))


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
    """Lets a call pass to its handler if its rule allows it, and answers with `google.rpc.Status` if not.

    The request is received only after that, so that a workload that may not call cannot occupy a thread by sending nothing.
    Handlers of unary responses run on a pool of their own, so that a call whose time is over is answered although its
    handler goes on.
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
        """Ends the streams that would otherwise go on for ever, so that a server can stop."""
        for context in list(self._streams):
            context.cancel()

    def close(self) -> None:
        """Ends the pool of handlers. Running handlers are not waited for."""
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
        """Decides on a call. The cheapest and most certain refusals come first. Raises `Denial` or `Failure`."""
        now = self._clock()
        metadata = context.invocation_metadata()
        # Who calls comes before all else: a workload that may not call learns nothing more.
        try:
            caller = peer_svid(context.auth_context())
        except IdentityError as error:
            raise Denial("caller", Failure("CALLER_UNIDENTIFIED", f"the caller has no identity: {error}")) from error
        call = Call.of(metadata, caller.id, self._identity.trust_domain)
        record.call = call
        authorize_caller(rule, caller, self._identity.trust_domain, now)
        if not self._identity.current().svid.is_valid_at(now):
            raise Failure("UNAVAILABLE", "the certificate of this service has expired; try again shortly", retry_after=1)
        # Capacity comes before work: verifying a token is work.
        if not self._permits.acquire(blocking=False):
            raise Failure("OVERLOADED", "too many calls at once; try again shortly", retry_after=1)
        record.has_permit = True
        if rule.subject is Subject.USER:
            try:
                call.authorization, token = bearer_token(metadata)
                call.principal = self._verifier.verify(token)
            except (Failure, TokenError) as error:
                raise Denial("subject", error if isinstance(error, Failure) else error.to_failure()) from error
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

        def request_in_time(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            """The request of a call that has no deadline of its own."""
            if handler.request_streaming:
                return request_of(messages)
            timer = threading.Timer(self._limits.default_deadline, context.cancel)
            timer.start()
            try:
                return request_of(messages)
            finally:
                timer.cancel()

        def begin(context: grpc.ServicerContext) -> tuple[_Record, Call]:
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

        def unary_response(given: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            record, call = begin(context)

            def run() -> Any:
                try:
                    set_current(call)
                    return behavior(request_of(given), context)
                finally:
                    self._release(record)

            return record.settle(lambda: self._within_deadline(rule, context, run, record))

        def stream_response(given: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            record, call = begin(context)
            if not self._keep(record, context):
                return
            variables = contextvars.copy_context()
            variables.run(set_current, call)
            responses = record.settle(
                lambda: variables.run(lambda: iter(behavior(request_in_time(given, context), context))), last=False
            )
            while True:
                response = record.settle(lambda: variables.run(next, responses, _END), last=False)
                if response is _END:
                    record.code = grpc.StatusCode.OK
                    return
                yield response

        def pushed_response(given: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            """For handlers that do not block a thread, such as the one of the health service's Watch."""
            record, _ = begin(context)
            if not self._keep(record, context):
                return
            request = record.settle(lambda: request_in_time(given, context), last=False)
            # Nothing runs for it until it sends, so it does not count among the calls at once any more.
            self._release(record)
            record.settle(lambda: behavior(request, context, send))

        if not handler.response_streaming:
            guarded: Any = unary_response
        elif getattr(behavior, "experimental_non_blocking", False):
            pushed_response.experimental_non_blocking = True  # type: ignore[attr-defined]
            guarded = pushed_response
        else:
            guarded = stream_response
        # On the wire a request of one message is a stream of one.
        streaming = handler.response_streaming
        make = grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler
        return make(guarded, request_deserializer=None, response_serializer=handler.response_serializer)

    def _within_deadline(self, rule: Method, context: grpc.ServicerContext, run: Callable[[], Any], record: _Record) -> Any:
        asked = context.time_remaining()
        asked = None if asked is None or asked > _NO_DEADLINE else asked
        timeout = unary_timeout(rule, self._limits, asked)
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
            raise Failure("DEADLINE_EXCEEDED", "the deadline passed before the work was done") from None

    def _keep(self, record: _Record, context: grpc.ServicerContext) -> bool:
        """Notes a stream until it ends. Whether it still goes on."""

        def ended() -> None:
            self._streams.discard(context)
            self._release(record)

        self._streams.add(context)
        goes_on = context.add_callback(ended)
        if not goes_on:
            ended()
        return goes_on

    def _release(self, record: _Record) -> None:
        if record.take_permit():
            self._permits.release()


def unary_timeout(rule: Method, limits: Limits, asked: float | None) -> float | None:
    """How long a call may take, in seconds, where the caller asked for that. None: for ever, which only streams may."""
    if rule.client_streaming or rule.server_streaming:
        return asked
    longest = rule.max_deadline if rule.max_deadline is not None else limits.max_deadline
    default = rule.default_deadline if rule.default_deadline is not None else limits.default_deadline
    return min(longest, default if asked is None else asked)


_END = object()


def _refuse_unknown(_requests: Any, context: grpc.ServicerContext) -> NoReturn:
    text = "no such RPC here; `drystone access show` lists what there is"
    context.abort_with_status(Failure("METHOD_UNKNOWN", text).to_status())
    raise AssertionError("abort_with_status has returned")


class _Record:
    """What is logged of one call when it ends, however it ends."""

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
        """Whether there is a permit to give back; True only once."""
        with self._lock:
            had, self.has_permit = self.has_permit, False
            return had

    def settle(self, work: Callable[[], Any], *, last: bool = True) -> Any:
        """Runs a part of the handler; what it raises becomes the status of the call."""
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
                # The caller has gone; what the handler raises is how it learns of that.
                raise
            code = _code_of(self._context)
            if type(error) is Exception and not error.args and code is not None:
                # `context.abort`, which has set the status.
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
        """The caller learns no more than that something went wrong."""
        _ACCESS.exception("the handler failed", extra={"fields": self._fields()})
        self.fail(Failure("INTERNAL", "something went wrong on our side; the log has it under this request id"))

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
