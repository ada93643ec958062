"""Registers and uses a passkey in Chromium, with its virtual authenticator, against the REST API.

usage: passkeys_chromium.py --server URL [--page-port PORT] [--email E --password P [--token T]]

The page's origin is http://localhost:PORT, which the server must expect, with the relying party id `localhost`. Without an
account of the arguments one is registered. Needs chromium and chromedriver, and nothing from PyPI. Prints a line per step;
exits with 1 at the first that fails.
"""

import argparse
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path

PAGE = Path(__file__).with_name("passkeys.html")
# For one ceremony, in seconds; with the virtual authenticator it takes milliseconds, also when it fails.
SCRIPT_TIMEOUT = 30


class Failed(Exception):
    """A step failed; the text says which and how."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Api:
    """The REST API of the server."""

    def __init__(self, server):
        self.server = server.rstrip("/")

    def send(self, path, body, token=None):
        """The status and the JSON of the response."""
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.server + path, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                return error.code, json.loads(text)
            except ValueError:
                raise Failed(f"{path} answered {error.code} without JSON: {text[:300]}") from None
        except OSError as error:
            raise Failed(f"{path}: {error}") from error

    def call(self, path, body, token=None):
        status, answer = self.send(path, body, token)
        expect(status == 200, f"{path} answered {status}: {json.dumps(answer)}")
        return answer

    def refused(self, path, body, token=None):
        """Requires an error with the reason PASSKEY_INVALID, and returns its message."""
        status, answer = self.send(path, body, token)
        reasons = [detail.get("reason") for detail in answer.get("details", [])]
        expect(
            status in (400, 401) and "PASSKEY_INVALID" in reasons,
            f"{path} should answer PASSKEY_INVALID, answered {status}: {json.dumps(answer)}",
        )
        return answer["message"]


class Browser:
    """A session of headless Chromium with one virtual authenticator, over the WebDriver protocol."""

    def __init__(self, chromedriver, chromium, directory):
        self.session, self.profile = None, f"{directory}/profile"
        self.driver = subprocess.Popen(
            # With port 0 it takes a free port and prints it.
            [chromedriver, "--port=0"],
            env={**os.environ, "HOME": directory, "TMPDIR": directory},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            self.port = self.read_port()
            self.start_session(chromium)
        except BaseException:
            self.close()
            raise

    def read_port(self):
        for line in self.driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise Failed(f"chromedriver ended with {self.driver.wait()} before it listened")

    def start_session(self, chromium):
        arguments = [
            "--headless=new",
            # The sandbox needs a user that is not root; the only page is this test's own.
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            f"--user-data-dir={self.profile}",
        ]
        capabilities = {
            "browserName": "chrome",
            "timeouts": {"script": SCRIPT_TIMEOUT * 1000, "pageLoad": 20_000},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "webauthn:virtualAuthenticators": True,
        }
        started = self.command("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = f"/session/{started['sessionId']}"
        self.version = started["capabilities"]["browserVersion"]
        self.authenticator = self.command(
            "POST",
            f"{self.session}/webauthn/authenticator",
            {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserConsenting": True,
                "isUserVerified": True,
            },
        )

    def command(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SCRIPT_TIMEOUT + 10)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            value = json.load(response)["value"]
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"chromedriver: {method} {path}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise Failed(f"chromedriver: {method} {path}: {value['error']}: {value['message']}")
        return value

    def open(self, url):
        self.command("POST", f"{self.session}/url", {"url": url})

    def run(self, call, *arguments):
        """Runs a function of the page and waits for the promise that it returns."""
        script = f"const done = arguments[arguments.length - 1]; {call}(...Array.from(arguments).slice(0, -1)).then(done);"
        return self.command("POST", f"{self.session}/execute/async", {"script": script, "args": list(arguments)})

    def create(self, options):
        return passkey_of(self.run("createPasskey", options))

    def get(self, options, mediation="optional"):
        return passkey_of(self.run("getPasskey", options, mediation))

    def create_fails(self, options):
        return error_of(self.run("createPasskey", options))

    def get_fails(self, options):
        return error_of(self.run("getPasskey", options, "optional"))

    def credentials(self):
        return self.command("GET", f"{self.session}/webauthn/authenticator/{self.authenticator}/credentials")

    def set_user_verified(self, verified):
        path = f"{self.session}/webauthn/authenticator/{self.authenticator}/uv"
        self.command("POST", path, {"isUserVerified": verified})

    def close(self):
        try:
            if self.session and self.driver.poll() is None:
                self.command("DELETE", self.session)
        except Failed as error:
            print(error, file=sys.stderr)
        finally:
            self.driver.kill()
            self.driver.wait()
            self.kill_chromium()

    def kill_chromium(self):
        """Ends what chromedriver did not: when it was interrupted while it started chromium, it leaves it running."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"--user-data-dir={self.profile}".encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                pass  # It ended by itself.


def passkey_of(result):
    expect("credential" in result, f"the browser refused the ceremony: {result}")
    return result["credential"]


def error_of(result):
    expect("error" in result, f"the browser should refuse the ceremony, and answered {result}")
    return result["error"]


def serve_page(port):
    """Serves the page on 127.0.0.1, on a free port if `port` is 0."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/"
            body = PAGE.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Journey:
    """The steps, in the order of `STEPS`."""

    def __init__(self, api, browser, page, other_page, account):
        self.api, self.browser, self.page, self.other_page = api, browser, page, other_page
        self.email, self.password, self.token = account

    def options(self, path, body=None, token=None):
        answer = self.api.call(path, body or {}, token)
        expect(answer.get("expireTime"), f"{path} answered no expireTime: {answer}")
        return answer["options"]

    def sign_in_with(self, credential):
        tokens = self.api.call("/v1/passkeys:signIn", {"credential": credential, "deviceToken": ""})
        expect(tokens.get("accessToken"), f"no tokens: {tokens}")
        return tokens["accessToken"]

    def password_challenge(self):
        answer = self.api.call("/v1/auth/login", {"email": self.email, "password": self.password})
        challenge = answer.get("challenge", {})
        expect("FACTOR_KIND_PASSKEY" in challenge.get("factors", []), f"no challenge for a passkey: {answer}")
        expect("accessToken" not in answer, f"a password alone signed in: {answer}")
        return challenge["challengeToken"]

    def sign_in_with_password(self):
        """A password signs in, while the account has no passkey."""
        if not self.email:
            self.email, self.password = f"chromium.{uuid.uuid4().hex}@example.com", f"correct horse {uuid.uuid4().hex}"
            account = {"email": self.email, "password": self.password, "displayName": "Grace"}
            self.api.call("/v1/auth/register", account)
        if not self.token:
            answer = self.api.call("/v1/auth/login", {"email": self.email, "password": self.password})
            expect(answer.get("accessToken"), f"no tokens: {answer}")
            self.token = answer["accessToken"]

    def register(self):
        """A passkey is registered."""
        options = self.options("/v1/passkeys:beginRegistration", token=self.token)
        expect(options["attestation"] == "none", f"attestation: {options}")
        expect(options["authenticatorSelection"]["residentKey"] == "required", f"residentKey: {options}")
        expect(options["authenticatorSelection"]["userVerification"] == "required", f"userVerification: {options}")
        credential = self.browser.create(options)
        body = {"displayName": "Laptop", "credential": credential}
        answer = self.api.call("/v1/passkeys:register", body, self.token)
        factor = answer["factor"]
        expect(factor["kind"] == "FACTOR_KIND_PASSKEY" and factor["displayName"] == "Laptop", f"factor: {answer}")
        self.credential_id = json.loads(credential)["id"]
        stored = self.browser.credentials()
        expect([entry["credentialId"] for entry in stored] == [self.credential_id], f"the authenticator has {stored}")
        expect(stored[0]["isResidentCredential"], "the credential is not discoverable")

    def sign_in_without_password(self):
        """A passkey signs in, without password and without the name of the account."""
        options = self.options("/v1/passkeys:beginSignIn")
        expect(not options.get("allowCredentials"), f"a sign-in without account has allowCredentials: {options}")
        credential = self.browser.get(options)
        given = json.loads(credential)
        expect(given["id"] == self.credential_id and given["response"]["userHandle"], f"credential: {credential}")
        # Registration may have ended the session that registered.
        self.token = self.sign_in_with(credential)

    def register_again(self):
        """The browser refuses a second passkey on the same authenticator: excludeCredentials has the first."""
        options = self.options("/v1/passkeys:beginRegistration", token=self.token)
        excluded = [descriptor["id"] for descriptor in options.get("excludeCredentials", [])]
        expect(excluded == [self.credential_id], f"excludeCredentials is {excluded}")
        error = self.browser.create_fails(options)
        expect(error == "InvalidStateError", f"the browser answered {error}")

    def sign_in_from_autofill(self):
        """Conditional mediation, which a page uses to offer passkeys in the autofill of its form, signs in."""
        options = self.options("/v1/passkeys:beginSignIn")
        self.token = self.sign_in_with(self.browser.get(options, "conditional"))

    def second_factor(self):
        """A password and a passkey as second factor sign in."""
        challenge = self.password_challenge()
        options = self.options("/v1/passkeys:beginSignIn", {"challengeToken": challenge})
        allowed = [descriptor["id"] for descriptor in options.get("allowCredentials", [])]
        expect(allowed in ([], [self.credential_id]), f"allowCredentials is {allowed}")
        body = {"challengeToken": challenge, "passkey": self.browser.get(options)}
        tokens = self.api.call("/v1/auth/login:complete", body)
        expect(tokens.get("accessToken"), f"no tokens: {tokens}")
        self.token = tokens["accessToken"]

    def verify(self):
        """A passkey verifies the user of a session again."""
        options = self.options("/v1/passkeys:beginVerification", token=self.token)
        answer = self.api.call("/v1/auth/verify", {"passkey": self.browser.get(options)}, self.token)
        expect(answer.get("authTime") and answer.get("amr"), f"no authTime or amr: {answer}")

    def refuse_another_origin(self):
        """The server refuses a page of another port: the browser allows it, since an RP ID has no port."""
        self.browser.open(self.other_page)
        credential = self.browser.get(self.options("/v1/passkeys:beginSignIn"))
        message = self.api.refused("/v1/passkeys:signIn", {"credential": credential, "deviceToken": ""})
        challenge = self.password_challenge()
        options = self.options("/v1/passkeys:beginSignIn", {"challengeToken": challenge})
        body = {"challengeToken": challenge, "passkey": self.browser.get(options)}
        self.api.refused("/v1/auth/login:complete", body)
        options = self.options("/v1/passkeys:beginVerification", token=self.token)
        self.api.refused("/v1/auth/verify", {"passkey": self.browser.get(options)}, self.token)
        return message

    def refuse_another_host(self):
        """The browser refuses a page of another host: the RP ID is not its own."""
        self.browser.open(self.page.replace("localhost", "127.0.0.1"))
        error = self.browser.get_fails(self.options("/v1/passkeys:beginSignIn"))
        expect(error == "SecurityError", f"the browser answered {error}")

    def refuse_another_challenge(self):
        """The server refuses the assertion of a challenge that was used."""
        self.browser.open(self.page)
        credential = self.browser.get(self.options("/v1/passkeys:beginSignIn"))
        self.sign_in_with(credential)
        return self.api.refused("/v1/passkeys:signIn", {"credential": credential, "deviceToken": ""})

    def fail_user_verification(self):
        """The browser refuses when the user cannot be verified."""
        self.browser.set_user_verified(False)
        error = self.browser.get_fails(self.options("/v1/passkeys:beginSignIn"))
        expect(error == "NotAllowedError", f"the browser answered {error}")
        self.browser.set_user_verified(True)
        self.sign_in_with(self.browser.get(self.options("/v1/passkeys:beginSignIn")))

    STEPS = (
        sign_in_with_password, register, sign_in_without_password, register_again, sign_in_from_autofill, second_factor,
        verify, refuse_another_origin, refuse_another_host, refuse_another_challenge, fail_user_verification,
    )  # fmt: skip

    def run(self):
        self.browser.open(self.page)
        for step in self.STEPS:
            try:
                message = step(self)
            except Failed as error:
                raise Failed(f"{step.__name__}: {error}") from error
            print(f"ok {step.__name__}" + (f": {message}" if message else ""), flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True, help="the base URL of the REST API")
    parser.add_argument("--page-port", type=int, default=0, help="the port of the page's origin, which the server expects")
    parser.add_argument("--email", help="the account; without it one is registered, whose address is not verified")
    parser.add_argument("--password")
    parser.add_argument("--token", help="an access token of the account; without it the password signs in")
    parser.add_argument("--timeout", type=int, default=180, help="seconds for everything")
    parser.add_argument("--chromedriver", default=shutil.which("chromedriver"))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parsed = parser.parse_args()
    if bool(parsed.email) != bool(parsed.password) or (parsed.token and not parsed.email):
        parser.error("--email needs --password, and --token both")
    if not (parsed.chromedriver and parsed.chromium):
        parser.error("no chromium or chromedriver: run scripts/setup")
    return parsed


def stop(number, _):
    raise Failed("timed out" if number == signal.SIGALRM else "terminated")


def main():
    given = arguments()
    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.alarm(given.timeout)
    with ExitStack() as stack:
        # chromium may still write to its profile while it ends.
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True))
        pages = [stack.enter_context(serve_page(port)) for port in (given.page_port, 0)]
        page, other_page = (f"http://localhost:{server.server_port}/" for server in pages)
        browser = Browser(given.chromedriver, given.chromium, directory)
        stack.callback(browser.close)
        # A second signal must not interrupt the end of the browser.
        for number in (signal.SIGALRM, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.SIG_IGN)
        account = (given.email, given.password, given.token)
        Journey(Api(given.server), browser, page, other_page, account).run()
        print(f"all checks passed with chromium {browser.version}")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"passkeys_chromium: {error}")
