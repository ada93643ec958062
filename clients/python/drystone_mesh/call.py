"""The call that a handler serves: its caller and its user."""

from __future__ import annotations

import contextvars
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from .contract import ENTRY_POINTS
from .errors import Failure
from .identity import SpiffeId
from .tokens import Principal

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CURRENT: contextvars.ContextVar[Call] = contextvars.ContextVar("drystone_call")


@dataclass
class Call:
    """The metadata of a call. `principal` is set if and only if the rule requires SUBJECT_USER."""

    request_id: str
    caller: SpiffeId
    traceparent: str | None
    #: Address and user agent of the outside client; empty unless the caller is an entry point.
    client_address: str
    client_agent: str
    principal: Principal | None = None
    authorization: str | None = None

    @classmethod
    def of(cls, metadata: Iterable[tuple[str, str | bytes]], caller: SpiffeId, trust_domain: str) -> Call:
        """Reads the metadata of a call. Client address and agent are accepted only from entry points."""
        given = {key: value for key, value in metadata if isinstance(value, str)}
        is_entry_point = caller.trust_domain == trust_domain and caller.workload in ENTRY_POINTS
        request_id, traceparent = given.get("x-request-id", ""), given.get("traceparent", "")
        return cls(
            request_id=request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
            caller=caller,
            traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else None,
            client_address=given.get("x-drystone-client-address", "") if is_entry_point else "",
            client_agent=given.get("x-drystone-client-agent", "") if is_entry_point else "",
        )

    @property
    def user(self) -> Principal:
        """The end user of the call. Raises `Failure` if the rule of the RPC requires none."""
        if self.principal is None:
            raise Failure("TOKEN_MISSING", "the call needs an access token")
        return self.principal

    def metadata(self, *, for_user: bool = False) -> list[tuple[str, str]]:
        """Metadata for a call to another service, with the user's token if `for_user`."""
        metadata = [("x-request-id", self.request_id)]
        if self.traceparent:
            metadata.append(("traceparent", self.traceparent))
        if for_user and self.authorization:
            metadata.append(("authorization", self.authorization))
        return metadata


def current_call() -> Call:
    """The call that the running handler serves. Raises `LookupError` outside a handler."""
    return _CURRENT.get()


def set_current(call: Call) -> None:
    _CURRENT.set(call)
