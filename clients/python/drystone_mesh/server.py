"""The server: configuration, background tasks and the gRPC server."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, fields
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from . import logs
from .access import AccessInterceptor, Limits
from .contract import HEALTH, Contract, Messages
from .identity import Identity, Upstream
from .keys import KeySet, KeyWatcher
from .revocations import RevocationView, RevocationWatcher
from .tokens import Verifier

_LOG = logging.getLogger("drystone.server")

#: Maximum concurrent streams of one connection.
MAX_STREAMS = 256
#: Calls in addition to `Limits.in_flight`: health watches, and calls that wait to be refused.
MAX_WATCHES = 1024

#: Registers the servicers by calling the `add_XServicer_to_server` functions of the generated code.
AddServicers = Callable[[grpc.Server], None]


@dataclass(frozen=True)
class Config:
    """The configuration. Each field is an argument `--NAME` and an environment variable `DRYSTONE_NAME`."""

    #: The workload name of this service in its contract and certificate.
    workload: str
    #: The descriptor set of the service, with imports.
    contract: str
    #: The descriptor set of the platform, from `drystone contract export`.
    platform: str
    #: Certificate, private key and CA certificates, as PEM files.
    cert: str
    key: str
    ca: str
    #: HOST:PORT of the auth service.
    auth: str
    #: HOST:PORT of each instance of the session service, separated by commas.
    session: str
    #: The issuer of access tokens: the `issuer` of the mesh.
    issuer: str
    audience: str = "drystone"
    trust_domain: str = "drystone.local"
    listen: str = "127.0.0.1:0"

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Config:
        """Creates the configuration from the arguments of `add_arguments`."""
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})


def add_arguments(parser: argparse.ArgumentParser, workload: str, contract: str | None = None) -> None:
    """Declares the arguments of `Config`; those set in the environment are optional."""
    given = {"workload": workload, "contract": contract}
    for field in fields(Config):
        variable = f"DRYSTONE_{field.name.upper()}"
        default = given.get(field.name) or (field.default if isinstance(field.default, str) else None)
        value = os.environ.get(variable, default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", default=value, required=value is None, help=f"[env: {variable}]"
        )


class MeshServer:
    """A gRPC server that authorizes calls by the contract, with the background tasks that this needs."""

    def __init__(
        self,
        config: Config,
        add_servicers: AddServicers,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads the files and binds the address, without serving yet.

        Raises `ContractError`, `IdentityError` or `OSError` for unusable files, and `RuntimeError` if the address cannot
        be bound.
        """
        self.config = config
        self.contract = Contract.decode(Path(config.contract).read_bytes(), config.workload)
        platform = Messages.decode(Path(config.platform).read_bytes())
        self.identity = Identity(config.cert, config.key, config.ca, config.workload, config.trust_domain)
        self.keys = KeySet()
        self.revocations = RevocationView(clock)
        self.verifier = Verifier(config.issuer, config.audience, self.keys, self.revocations, clock)

        auth = Upstream(self.identity, config.auth, "auth")
        sessions = [Upstream(self.identity, address.strip(), "session") for address in config.session.split(",")]
        self._upstreams = [auth, *sessions]
        self._watchers: list[KeyWatcher | RevocationWatcher] = [KeyWatcher(self.keys, platform, auth.channel)]
        self._watchers += [RevocationWatcher(self.revocations, platform, session.channel) for session in sessions]

        rules = self.contract.methods | {method.path: method for method in HEALTH}
        self.access = AccessInterceptor(rules, self.identity, self.verifier, limits, clock)
        # More threads than concurrent calls, so that calls above the limit are refused and not queued.
        pool = futures.ThreadPoolExecutor(limits.in_flight + 16, thread_name_prefix="drystone-grpc")
        self._server = grpc.server(
            pool,
            interceptors=[self.access],
            options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", MAX_STREAMS)],
            maximum_concurrent_rpcs=limits.in_flight + MAX_WATCHES,
        )
        add_servicers(self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        host = config.listen.rpartition(":")[0]
        port = self._server.add_secure_port(config.listen, self.identity.server_credentials())
        self.address = f"{host}:{port}"
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._reporter = threading.Thread(target=self._report, name="drystone-report", daemon=True)

    def start(self) -> None:
        """Starts serving. The health service reports NOT_SERVING until tokens can be verified."""
        for watcher in self._watchers:
            watcher.start()
        self._reporter.start()
        self._server.start()
        _LOG.info("serving", extra={"fields": {"workload": self.config.workload, "address": self.address}})

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Waits until tokens can be verified, that is, keys and revocations have been received."""
        return self._ready.wait(timeout)

    def channel(self, address: str, service: str) -> grpc.Channel:
        """A channel to a service of the mesh, as this workload."""
        return self.identity.channel(address, service)

    def stop(self, grace: float = 10.0) -> None:
        """Stops gracefully: refuses new calls, cancels streams, waits up to `grace` seconds for other calls."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace)
        self.access.stop_streams()
        stopped.wait()
        self.access.close()
        self._stop.set()
        for watcher in self._watchers:
            watcher.stop()
        self._reporter.join()
        for upstream in self._upstreams:
            upstream.close()

    def _report(self) -> None:
        """Reports SERVING once tokens can be verified, and logs when the revocation view becomes stale."""
        was_fresh = True
        while not self._stop.wait(0.5 if self._ready.is_set() else 0.02):
            if not self._ready.is_set():
                if self.keys.is_loaded and self.revocations.last_heard is not None:
                    self._set_health(health_pb2.HealthCheckResponse.SERVING)
                    self._ready.set()
                continue
            is_fresh = self.revocations.is_fresh
            if is_fresh != was_fresh:
                if is_fresh:
                    _LOG.info("revocations are received again")
                else:
                    _LOG.warning("no revocations received for 10 s: the view is stale")
                was_fresh = is_fresh

    def _set_health(self, status: int) -> None:
        for name in {"", *(method.service for method in self.contract.methods.values())}:
            self._health.set(name, status)


def serve(config: Config, add_servicers: AddServicers, limits: Limits = Limits()) -> MeshServer:
    """Starts a server. The caller must stop it."""
    server = MeshServer(config, add_servicers, limits)
    server.start()
    return server


def run(config: Config, add_servicers: AddServicers, ready_file: str | None = None) -> None:
    """Serves until SIGTERM or SIGINT. Writes the address as JSON to `ready_file` once tokens can be verified."""
    logs.configure()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = serve(config, add_servicers)
    while not stopped.is_set() and not server.wait_until_ready(0.1):
        pass
    if ready_file and not stopped.is_set():
        unfinished = Path(f"{ready_file}.unfinished")
        unfinished.write_text(json.dumps({"grpc": {config.workload: server.address}}))
        unfinished.rename(ready_file)
    stopped.wait()
    server.stop()
