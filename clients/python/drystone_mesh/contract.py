"""The access rules of RPCs, read from an encoded `google.protobuf.FileDescriptorSet`.

The set must include its imports (`protoc --include_imports`). It has its own descriptor pool, so its files may differ in
version from the generated code of the process.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

#: In the callers of a rule: every entry point.
OUTSIDE = "outside"
#: In the callers of a rule: every workload of the trust domain except those in `LISTED_ONLY`.
ANY = "any"
ENTRY_POINTS = frozenset({"edge", "ingress"})
LISTED_ONLY = frozenset({"edge", "ingress", "operator"})


class ContractError(Exception):
    """A descriptor set that cannot be used."""


class Subject(enum.Enum):
    """Whether a call requires an end user."""

    NONE = 1
    USER = 2
    USER_OR_OPERATOR = 3


class Factors(enum.Enum):
    """What an end user must have proved who they are with."""

    TWO = 1
    PHISHING_RESISTANT = 2

    @property
    def acr(self) -> str:
        """The authentication context class in challenges (`acr_values`, RFC 9470)."""
        return "mfa" if self is Factors.TWO else "phr"


class Audit(enum.Enum):
    """The audit level of an RPC. There is no durable trail yet, so both write log lines."""

    LOG = 1
    TRAIL = 2


@dataclass(frozen=True)
class Method:
    """One RPC, its access rule and its policy. Durations are in seconds."""

    path: str
    callers: tuple[str, ...]
    subject: Subject = Subject.NONE
    permission: str | None = None
    factors: Factors | None = None
    max_auth_age: float | None = None
    fresh_revocations: bool = False
    audit: Audit | None = None
    default_deadline: float | None = None
    max_deadline: float | None = None
    client_streaming: bool = False
    server_streaming: bool = False

    def allows(self, workload: str) -> bool:
        """Whether the rule allows calls from this workload of the own trust domain."""
        return any(
            workload in ENTRY_POINTS
            if caller == OUTSIDE
            else workload not in LISTED_ONLY
            if caller == ANY
            else caller == workload
            for caller in self.callers
        )

    @property
    def service(self) -> str:
        """The full name of the service, `package.Service`."""
        return self.path.split("/")[1]


#: The rules of the health service, which is in no contract: every workload may call it.
HEALTH = tuple(
    Method(path=f"/grpc.health.v1.Health/{name}", callers=(ANY, *sorted(LISTED_ONLY)), server_streaming=name == "Watch")
    for name in ("Check", "List", "Watch")
)


@dataclass(frozen=True)
class Contract:
    """The services of one workload in a descriptor set."""

    workload: str
    methods: dict[str, Method]
    permissions: tuple[str, ...]
    messages: Messages = field(repr=False)

    @classmethod
    def decode(cls, descriptor_set: bytes, workload: str) -> Contract:
        """Reads the services of `workload`.

        Raises `ContractError` if there is none, if an import is missing, or if an RPC has no valid rule.
        """
        messages = Messages.decode(descriptor_set)
        options = _Options(messages)
        methods: dict[str, Method] = {}
        permissions: list[str] = []
        for file in messages.files:
            for service in file.service:
                if options.of_service(service, "workload") != workload:
                    continue
                name = f"{file.package}.{service.name}" if file.package else service.name
                permissions.extend(item.name for item in options.of_service(service, "permissions") or ())
                for method in service.method:
                    rule = _method(options, f"/{name}/{method.name}", method)
                    methods[rule.path] = rule
        if not methods:
            raise ContractError(
                f'no service of the descriptor set has `option (drystone.access.v1.workload) = "{workload}"`'
            )
        return cls(workload, methods, tuple(permissions), messages)


class Messages:
    """The message classes of a descriptor set."""

    def __init__(self, files: list[Any], pool: descriptor_pool.DescriptorPool) -> None:
        self.files = files
        self.pool = pool

    @classmethod
    def decode(cls, descriptor_set: bytes) -> Messages:
        """Raises `ContractError` if the bytes are not a descriptor set with all its imports."""
        advice = "write it with `protoc --include_imports --descriptor_set_out=FILE`"
        pool = descriptor_pool.DescriptorPool()
        try:
            files = list(descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file)
            for file in files:
                pool.Add(file)
            for file in files:
                pool.FindFileByName(file.name)
        except (DecodeError, TypeError, KeyError, ValueError) as error:
            raise ContractError(f"it is not a descriptor set with all its imports: {error}; {advice}") from error
        return cls(files, pool)

    def get(self, name: str) -> type[Message]:
        """The class of the message with this full name. Raises `ContractError` if the set has none."""
        try:
            return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))
        except KeyError as error:
            raise ContractError(f"the descriptor set has no message {name}") from error


class _Options:
    """Custom options, decoded with the pool of the descriptor set; in another pool they are unknown fields."""

    def __init__(self, messages: Messages) -> None:
        self._pool = messages.pool
        self._method = messages.get("google.protobuf.MethodOptions")
        self._service = messages.get("google.protobuf.ServiceOptions")

    def of_method(self, method: Any, name: str) -> Any:
        return self._read(self._method, method, name)

    def of_service(self, service: Any, name: str) -> Any:
        return self._read(self._service, service, name)

    def _read(self, options_class: type[Message], descriptor: Any, name: str) -> Any:
        try:
            extension = self._pool.FindExtensionByName(f"drystone.access.v1.{name}")
        except KeyError:
            return None
        options = options_class.FromString(descriptor.options.SerializeToString())
        value = options.Extensions[extension]
        is_given = len(value) > 0 if extension.is_repeated else options.HasExtension(extension)
        return value if is_given else None


def _method(options: _Options, path: str, method: Any) -> Method:
    rule = options.of_method(method, "rule")
    if rule is None:
        raise ContractError(f"{path} has no access rule: add `option (drystone.access.v1.rule)`")
    try:
        subject = Subject(rule.subject)
    except ValueError:
        raise ContractError(f"the access rule of {path} has no subject") from None
    if not rule.callers:
        raise ContractError(f"the access rule of {path} has no callers")
    factors = _factors(rule, path)
    max_auth_age = _seconds(rule, "max_auth_age", path)
    if subject is Subject.USER_OR_OPERATOR and "operator" not in rule.callers:
        raise ContractError(f"{path} has SUBJECT_USER_OR_OPERATOR but does not list `operator` among its callers")
    fresh_revocations = getattr(rule, "fresh_revocations", False)
    asks_for_user = rule.permission or factors is not None or max_auth_age is not None or fresh_revocations
    if subject is Subject.NONE and asks_for_user:
        text = "requires a permission, factors, a recent sign-in or fresh revocations, which needs SUBJECT_USER"
        raise ContractError(f"{path} {text}")
    policy = options.of_method(method, "policy")
    deadline = policy.deadline if policy is not None else None
    return Method(
        path=path,
        callers=tuple(rule.callers),
        subject=subject,
        permission=rule.permission or None,
        factors=factors,
        max_auth_age=max_auth_age,
        # An older access.proto does not have the field.
        fresh_revocations=fresh_revocations,
        audit=Audit(rule.audit) if rule.audit in (1, 2) else None,
        default_deadline=_seconds(deadline, "default", path),
        max_deadline=_seconds(deadline, "max", path),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )


def _factors(rule: Any, path: str) -> Factors | None:
    # An older access.proto does not have the field.
    number = getattr(rule, "factors", 0)
    try:
        return Factors(number) if number else None
    except ValueError:
        raise ContractError(f"{path} requires unknown `factors`") from None


def _seconds(message: Any, name: str, path: str) -> float | None:
    if message is None or not message.HasField(name):
        return None
    value = getattr(message, name)
    seconds = value.seconds + value.nanos / 1e9
    if seconds <= 0:
        raise ContractError(f"{path} has a `{name}` that is not a positive duration")
    return float(seconds)
