"""A gRPC service in Python that joins a Drystone mesh.

The access rules come from the same descriptor set that the edge and the other services use. `serve` and `run` start a
server, `current_call` returns caller and user of a call, and a handler raises `Failure` to refuse a call.
"""

from .access import AccessInterceptor, Limits
from .call import Call, current_call
from .contract import Audit, Contract, ContractError, Factors, Messages, Method, Subject
from .errors import Failure, reason_of
from .identity import Identity, IdentityError, SpiffeId, Svid
from .keys import KeySet
from .revocations import RevocationView
from .server import Config, MeshServer, add_arguments, run, serve
from .tokens import Principal, TokenError, Verifier

__all__ = [
    "AccessInterceptor",
    "Audit",
    "Call",
    "Config",
    "Contract",
    "ContractError",
    "Factors",
    "Failure",
    "Identity",
    "IdentityError",
    "KeySet",
    "Limits",
    "MeshServer",
    "Messages",
    "Method",
    "Principal",
    "RevocationView",
    "SpiffeId",
    "Subject",
    "Svid",
    "TokenError",
    "Verifier",
    "add_arguments",
    "current_call",
    "reason_of",
    "run",
    "serve",
]
