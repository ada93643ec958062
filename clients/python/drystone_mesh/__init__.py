"""A gRPC service in Python that joins a Drystone mesh.

The access rules come from the same descriptor set that the edge and the other services read. See `serve` and `run` for
the server, `current_call` for what a handler knows of its call, and `Failure` for how a handler refuses one.
"""

from .access import AccessInterceptor, Limits
from .call import Call, current_call
from .contract import Audit, Contract, ContractError, Messages, Method, Subject
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
