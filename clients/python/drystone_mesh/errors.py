"""Error reasons of the mesh, their gRPC codes, and `google.rpc.Status`."""

from __future__ import annotations

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

#: The `domain` of every `google.rpc.ErrorInfo` of the mesh.
DOMAIN = "drystone"

#: The reasons that this package uses, with their codes.
CODES: dict[str, grpc.StatusCode] = {
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_PAGE_TOKEN": grpc.StatusCode.INVALID_ARGUMENT,
    "METHOD_UNKNOWN": grpc.StatusCode.UNIMPLEMENTED,
    "CALLER_UNIDENTIFIED": grpc.StatusCode.UNAUTHENTICATED,
    "CALLER_REVOKED": grpc.StatusCode.UNAUTHENTICATED,
    "CALLER_EXPIRED": grpc.StatusCode.UNAUTHENTICATED,
    "CALLER_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "TOKEN_MISSING": grpc.StatusCode.UNAUTHENTICATED,
    "TOKEN_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "TOKEN_EXPIRED": grpc.StatusCode.UNAUTHENTICATED,
    "TOKEN_REVOKED": grpc.StatusCode.UNAUTHENTICATED,
    "REAUTHENTICATION_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "FACTORS_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_MISSING": grpc.StatusCode.PERMISSION_DENIED,
    "REQUEST_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


class Failure(Exception):
    """A refused or failed call. A handler raises it; the caller gets the reason and the message.

    A reason that is not in `CODES` needs a `code` and the `domain` of the service.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        domain: str = DOMAIN,
        fields: dict[str, str] | None = None,
        retry_after: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.code = code or CODES[reason]
        self.domain = domain
        self.fields = fields or {}
        self.retry_after = retry_after
        #: The `metadata` of `google.rpc.ErrorInfo`.
        self.metadata = metadata or {}

    @classmethod
    def invalid_field(cls, field: str, description: str) -> Failure:
        """A field of the request violates the contract."""
        return cls("INVALID_REQUEST", f"{field}: {description}", fields={field: description})

    def to_status(self) -> grpc.Status:
        """The status with its details, for `ServicerContext.abort_with_status`."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.fields:
            request = error_details_pb2.BadRequest()
            for field, description in self.fields.items():
                request.field_violations.add(field=field, description=description)
            status.details.add().Pack(request)
        if self.retry_after is not None:
            delay = duration_pb2.Duration(seconds=int(self.retry_after), nanos=int(self.retry_after % 1 * 1_000_000_000))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return rpc_status.to_status(status)


def reason_of(error: grpc.RpcError) -> str | None:
    """The reason of a failed call to a service of the mesh, or None."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return info.reason
    return None
