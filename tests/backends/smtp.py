"""An SMTP server for tests, started by smtp.rs.

The first line of standard input is the configuration (JSON), each further line a command:

    sync    answer with the event `done`
    close   close all connections, then answer with the event `done`

End of file stops the server. Standard output has one JSON object per line: `listening`, `opened`, `closed`, `attempt`, `mail`
and `done`. An event is written before the reply of the SMTP command that caused it.
"""

import asyncio
import email
import email.policy
import json
import logging
import os
import random
import ssl
import sys
import threading
import traceback

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, TLSSetupException

# Below the ephemeral port range, as in ports.rs: the port stays free while the server is stopped.
PORTS = range(10_000, 30_000)
# Seconds before a reply for `slow-*` and `slow-data-*`.
SLOW = 3
# Seconds; the server never closes an idle connection on its own.
IDLE_TIMEOUT = 86_400


def emit(event, **fields):
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def decode(server, session, envelope):
    """The fields of the event `mail`."""
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    # First, since the header parser reports defects only when a header is read.
    headers = [(name, str(value)) for name, value in message.items()]
    parts = list(message.walk())
    defects = [defect for part in parts for defect in part.defects]
    defects += [defect for part in parts for value in part.values() for defect in value.defects]

    def body(kind):
        part = message.get_body((kind,))
        return None if part is None else part.get_content().replace("\r\n", "\n")

    return {
        "mail_from": envelope.mail_from,
        "rcpt_to": envelope.rcpt_tos,
        "data": envelope.content.decode("utf-8", "replace"),
        "subject": None if message["subject"] is None else str(message["subject"]),
        "text": body("plain"),
        "html": body("html"),
        "headers": headers,
        "defects": [f"{type(defect).__name__}: {defect}" for defect in defects],
        "is_tls": server.transport.get_extra_info("ssl_object") is not None,
        "user": session.auth_data.login.decode() if session.auth_data else None,
    }


class Handler:
    """Chooses the behaviour by the local part of the recipient."""

    def __init__(self, attempts, requires_auth):
        # RCPT commands by recipient.
        self.attempts = attempts
        self.requires_auth = requires_auth

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        # aiosmtpd offers AUTH even if no user is configured.
        return [line for line in responses if self.requires_auth or not line.startswith("250-AUTH")]

    async def handle_RCPT(self, server, session, envelope, address, options):
        attempt = self.attempts[address] = self.attempts.get(address, 0) + 1
        emit("attempt", to=address)
        local = address.lower()
        if local.startswith("greylist-") and attempt == 1:
            return "451 4.7.1 greylisted, try again later"
        if local.startswith("temporary-"):
            return "451 4.3.0 temporary failure"
        if local.startswith("permanent-"):
            return "550 5.1.1 no such user"
        if local.startswith("drop-once-"):
            if attempt == 1:
                await close_without_reply(server)
        elif local.startswith("drop-"):
            await close_without_reply(server)
        if local.startswith("hang-"):
            await forever()
        if local.startswith("slow-") and not local.startswith("slow-data-"):
            await asyncio.sleep(SLOW)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        recipients = [address.lower() for address in envelope.rcpt_tos]
        if any(local.startswith("reject-data-") for local in recipients):
            return "554 5.6.0 message rejected"
        if any(local.startswith("slow-data-") for local in recipients):
            await asyncio.sleep(SLOW)
        emit("mail", **decode(server, session, envelope))
        for address in envelope.rcpt_tos:
            if address.lower().startswith("lost-reply-") and self.attempts[address] == 1:
                await close_without_reply(server)
        return "250 2.0.0 queued"

    async def handle_exception(self, error):
        if not isinstance(error, TLSSetupException):
            traceback.print_exception(error)
        return "421 4.3.0 internal error of the test server"


async def forever():
    # aiosmtpd cancels the task of a connection when the connection is lost.
    await asyncio.get_running_loop().create_future()


async def close_without_reply(server):
    server.transport.abort()
    await forever()


class Connection(SMTP):
    """Reports when a connection is opened and closed."""

    opened = set()
    counted = False

    def connection_made(self, transport):
        # STARTTLS calls this a second time.
        if not self.counted:
            self.counted = True
            self.opened.add(self)
            emit("opened")
        super().connection_made(transport)

    def connection_lost(self, error):
        # Called twice after a failed STARTTLS handshake.
        if self in self.opened:
            self.opened.discard(self)
            emit("closed")
            super().connection_lost(error)


async def close_all():
    while Connection.opened:
        for connection in list(Connection.opened):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.01)
    emit("done")


def read_commands(loop):
    for line in sys.stdin:
        if line.strip() == "close":
            asyncio.run_coroutine_threadsafe(close_all(), loop)
        else:
            loop.call_soon_threadsafe(emit, "done")
    os._exit(0)


def authenticator(user, password):
    expected = LoginPassword(user.encode(), password.encode())

    def authenticate(server, session, envelope, mechanism, given):
        return AuthResult(success=given == expected, handled=False, auth_data=given)

    return authenticate


async def listen(loop, configuration):
    tls = configuration["tls"]
    context = None
    if tls != "plain":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(configuration["certificate"], configuration["key"])
    options = {"hostname": "localhost", "timeout": IDLE_TIMEOUT, "loop": loop}
    if tls == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    user = configuration["user"]
    if user is not None:
        options |= {"auth_required": True, "authenticator": authenticator(user, configuration["password"])}
    # aiosmtpd knows TLS only from STARTTLS.
    options["auth_require_tls"] = tls != "tls"
    handler = Handler(configuration["attempts"], user is not None)
    implicit = context if tls == "tls" else None
    requested = configuration["port"]
    for _ in range(100):
        port = requested or random.choice(PORTS)
        try:
            await loop.create_server(lambda: Connection(handler, **options), "127.0.0.1", port, ssl=implicit)
            return port
        except OSError:
            # In use.
            await asyncio.sleep(0.1 if requested else 0)
    raise OSError("no free port")


async def main():
    loop = asyncio.get_running_loop()
    port = await listen(loop, json.loads(sys.stdin.readline()))
    emit("listening", port=port)
    threading.Thread(target=read_commands, args=(loop,), daemon=True).start()
    await forever()


# Connections that a test breaks on purpose are logged as errors.
logging.disable()
if not sys.warnoptions:
    import warnings

    # aiosmtpd warns of `auth_require_tls=False`.
    warnings.simplefilter("ignore")
asyncio.run(main())
