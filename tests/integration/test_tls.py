"""TLS with real clients: client certificates, the extension, renewal under load, what fails and how it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import threading

import httpx
import pytest
import trustme
from conftest import total, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.exceptions import ConnectionClosed

from obsserve import Config, Server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


class Files:
    def __init__(self, folder, authority):
        self.folder, self.authority = folder, authority
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self):
        self.leaf = self.authority.issue_cert("127.0.0.1", "localhost")
        self.write(self.leaf)

    def write(self, leaf):
        (self.folder / "new.key").write_bytes(leaf.private_key_pem.bytes())
        (self.folder / "new.pem").write_bytes(b"".join(b.bytes() for b in leaf.cert_chain_pems))
        os.replace(self.folder / "new.key", self.key)
        os.replace(self.folder / "new.pem", self.cert)

    def encrypt(self, password):
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        kind = serialization.PrivateFormat.PKCS8
        encryption = serialization.BestAvailableEncryption(password)
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, encryption))

    @property
    def options(self):
        return ["--port", "0", "--ssl-certfile", str(self.cert), "--ssl-keyfile", str(self.key)]

    def client(self, identity=None, version=None):
        context = ssl.create_default_context(cafile=str(self.ca))
        if identity is not None:
            identity.configure_cert(context)
        if version is not None:
            context.maximum_version = version
        return context


@pytest.fixture
def files(tmp_path, authority):
    return Files(tmp_path, authority)


def certificate(pem):
    return x509.load_pem_x509_certificate(pem if isinstance(pem, bytes) else pem.encode())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_extension_and_the_line_tell_of_the_connection(serve, files, authority, loop, version):
    server = serve(
        "tls_app:app", *files.options, "--loop", loop, "--ssl-ca-certs", str(files.ca), "--ssl-cert-reqs", "1"
    )
    assert server.url.startswith("https://")
    identity = authority.issue_cert("shop@example.org", common_name='shop, "west"')
    with httpx.Client(verify=files.client(identity, version)) as client:
        told = client.get(server.url).json()
    tls = told["tls"]
    served = certificate(files.leaf.cert_chain_pems[0].bytes())
    given = certificate(identity.cert_chain_pems[0].bytes())
    assert told["scheme"] == "https"
    assert certificate(tls["server_cert"]) == served
    assert certificate(tls["client_cert_chain"][0]) == given
    assert tls["client_cert_name"] == given.subject.rfc4514_string()
    assert tls["client_cert_error"] is None
    assert tls["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version.name]
    assert tls["cipher_suite"] in range(0x0001, 0x10000)
    assert httpx.get(server.url, verify=files.client()).json()["tls"]["client_cert_chain"] == []
    line, other = server.access_lines(2)
    assert (line["url_scheme"], line["tls_protocol_version"]) == (
        "https",
        version.name.replace("_", ".", 1).replace("_", "."),
    )
    assert line["tls_client_subject"] == tls["client_cert_name"]
    assert "tls_client_subject" not in other
    assert server.stop() == 0


def test_client_certificates_are_taken_and_refused_with_curl(serve, files, authority, program, tmp_path):
    curl = program("curl")
    server = serve(
        "tls_app:app",
        *files.options,
        "--ssl-ca-certs",
        str(files.ca),
        "--ssl-cert-reqs",
        "2",
        "--metrics-port",
        "0",
    )

    def ask(identity):
        arguments = [curl, "-sS", "--max-time", "20", "--cacert", str(files.ca), server.url]
        if identity is not None:
            path = tmp_path / "client.pem"
            path.write_bytes(identity.private_key_and_cert_chain_pem.bytes())
            arguments += ["--cert", str(path)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=30)

    accepted = ask(authority.issue_cert("shop@example.org"))
    assert accepted.returncode == 0, (accepted.stderr, server.stderr_path.read_text())
    assert json.loads(accepted.stdout)["scheme"] == "https", accepted.stderr
    assert ask(None).returncode != 0
    assert ask(trustme.CA().issue_cert("shop@example.org")).returncode != 0

    def counted(reason):
        return total(server.metrics(), "obsserve_tls_handshake_failures_total", reason=reason)

    wait_for(
        lambda: counted("no_client_certificate") == 1 and counted("bad_client_certificate") == 1, "the count"
    )
    samples = server.metrics()
    assert total(samples, "obsserve_http_protocol_errors_total", reason="tls_handshake") == 2
    assert total(samples, "obsserve_connections_closed_total", reason="tls_error") == 2
    assert len(server.access_lines(1)) == 1
    expiry = total(samples, "obsserve_tls_certificate_expiry_timestamp_seconds")
    assert expiry == certificate(files.cert.read_bytes()).not_valid_after_utc.timestamp()
    assert {event["reason"] for event in server.events("tls.handshake_failed")} == {
        "no_client_certificate",
        "bad_client_certificate",
    }


def test_client_certificates_are_taken_and_refused_with_httpx(serve, files, authority):
    server = serve("tls_app:app", *files.options, "--ssl-ca-certs", str(files.ca), "--ssl-cert-reqs", "2")
    known, unknown = authority.issue_cert("shop@example.org"), trustme.CA().issue_cert("shop@example.org")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with httpx.Client(verify=files.client(known, version)) as client:
            told = client.get(server.url).json()["tls"]
        given = certificate(known.cert_chain_pems[0].bytes())
        assert certificate(told["client_cert_chain"][0]) == given  # from Python 3.13 on its issuers follow
        for refused in (None, unknown):
            # With TLS 1.3 the client has done its part before the server looks at the certificate.
            with (
                httpx.Client(verify=files.client(refused, version)) as client,
                pytest.raises(httpx.HTTPError),
            ):
                client.get(server.url)
    assert len(server.access_lines(2)) == 2
    assert server.stop() == 0
    assert len(server.access_lines()) == 2, "a refused client leaves no exchange"


PROXY_V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"


def through_proxy_header(server, context, *parts):
    """What the server answers to a client whose proxy sends these bytes before its handshake."""
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            plain.sendall(part)
        with context.wrap_socket(plain, server_hostname=host) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            received = b""
            while data := client.recv(65536):
                received += data
            return received


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_proxy_protocol_comes_before_the_handshake(serve, files, loop):
    options = [*files.options, "--proxy-protocol", "--loop", loop, "--metrics-port", "0"]
    server = serve("tls_app:app", *options, "--timeout-tls-handshake", "0.5")
    for parts in ([PROXY_V1], [PROXY_V1[:9], PROXY_V1[9:]]):
        assert through_proxy_header(server, files.client(), *parts).startswith(b"HTTP/1.1 200")
    for line in server.access_lines(2):
        assert (line["client_address"], line["network_peer_address"]) == ("192.0.2.1", "127.0.0.1")
        assert line["url_scheme"] == "https"
    with pytest.raises(OSError):
        through_proxy_header(server, files.client())
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        silent.sendall(PROXY_V1)
        assert silent.recv(1) == b""

    def counted():
        samples = server.metrics()
        return (
            total(samples, "obsserve_proxy_protocol_errors_total", reason="missing"),
            total(samples, "obsserve_tls_handshake_failures_total", reason="timeout"),
        )

    wait_for(lambda: counted() == (1, 1), "the counts")
    assert server.stop() == 0


def test_an_untrusted_peer_speaks_tls_at_once(serve, files):
    server = serve("tls_app:app", *files.options, "--proxy-protocol", "--forwarded-allow-ips", "10.0.0.1")
    assert httpx.get(server.url, verify=files.client()).status_code == 200
    assert server.access_lines(1)[0]["client_address"] == "127.0.0.1"


def test_haproxy_passes_tls_through_and_names_the_client(serve, files, program, tmp_path):
    haproxy = program("haproxy")
    server = serve("tls_app:app", *files.options, "--proxy-protocol")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s {server.url.removeprefix('https://')} send-proxy-v2\n"
    )
    proxy = subprocess.Popen([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")])
    try:

        def asked():
            assert proxy.poll() is None
            try:
                return httpx.get(f"https://127.0.0.1:{port}", verify=files.client(), timeout=20)
            except httpx.ConnectError:
                return None

        assert wait_for(asked, "an answer through haproxy").json()["scheme"] == "https"
    finally:
        proxy.terminate()
        proxy.wait(20)
    line = server.access_lines(1)[-1]
    assert line["client_address"] == "127.0.0.1"
    assert line["http_response_status_code"] == 200


def test_certificates_are_renewed_under_load_without_a_failed_handshake(serve, files):
    server = serve("tls_app:app", *files.options, "--metrics-port", "0")
    failures, seen, stop = [], set(), threading.Event()
    context = files.client()

    def load():
        while not stop.is_set():
            try:
                seen.add(httpx.get(server.url, verify=context, timeout=20).json()["tls"]["server_cert"])
            except Exception as failure:
                failures.append(repr(failure))

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for renewal in (1, 2):
            files.issue()
            wait_for(lambda renewal=renewal: len(server.events("tls.reloaded")) == renewal, "renewal")
            wait_for(lambda renewal=renewal: len(seen) > renewal, "the new certificate")
        good = files.cert.read_bytes()
        files.cert.write_bytes(b"not a certificate")
        wait_for(lambda: server.events("tls.reload_failed"), "the report")
        assert "holds no certificate" in server.events("tls.reload_failed")[0]["message"]
        served = httpx.get(server.url, verify=context).json()["tls"]["server_cert"]
        assert certificate(served) == certificate(good)
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert not failures
    samples = server.metrics()
    assert total(samples, "obsserve_tls_certificate_reloads_total", result="success") == 2
    assert total(samples, "obsserve_tls_certificate_reloads_total", result="failure") == 1
    assert total(samples, "obsserve_tls_handshake_failures_total") == 0


def test_workers_renew_their_certificate_and_are_replaced_while_websockets_are_open(serve, files):
    from websockets.sync.client import connect

    server = serve("tls_app:app", *files.options, "--workers", "2", "--metrics-port", "0")
    failures, done, stop = [], [], threading.Event()
    context = files.client()

    def load():
        while not stop.is_set():
            try:
                done.append(httpx.get(server.url, verify=context, timeout=20).status_code)
            except Exception as failure:
                failures.append(repr(failure))

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        with connect(server.url.replace("https", "wss") + "/stays", ssl=context) as opened:
            assert json.loads(opened.recv())["scheme"] == "wss"
            files.issue()
            wanted = certificate(files.cert.read_bytes()).not_valid_after_utc.timestamp()
            wait_for(
                lambda: (
                    total(server.metrics(), "obsserve_tls_certificate_reloads_total", result="success") == 2
                ),
                "renewal in both workers",
            )
            expiry = server.metrics()["obsserve_tls_certificate_expiry_timestamp_seconds"]
            assert {labels["worker"]: value for labels, value in expiry} == {"0": wanted, "1": wanted}
            server.process.send_signal(signal.SIGHUP)
            wait_for(
                lambda: total(server.metrics(), "obsserve_worker_restarts_total", reason="reload") == 2,
                "replacement of both workers",
            )
            with pytest.raises(ConnectionClosed) as caught:
                opened.recv(20)
            assert caught.value.rcvd.code == 1012
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert not failures
    assert done
    samples = server.metrics()
    assert total(samples, "obsserve_tls_handshake_failures_total") == 0
    assert total(
        samples, "http_server_request_duration_seconds_count", http_response_status_code="200"
    ) == len(done)
    assert server.stop() == 0


def test_a_handshake_that_is_silent_or_no_tls_is_ended_and_counted(serve, files):
    server = serve("tls_app:app", *files.options, "--metrics-port", "0", "--timeout-tls-handshake", "0.3")
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        assert silent.recv(1) == b""
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        plain.recv(100)

    def counted(reason):
        return total(server.metrics(), "obsserve_tls_handshake_failures_total", reason=reason)

    wait_for(lambda: counted("timeout") == counted("not_tls") == 1, "the count")
    assert server.stop() == 0


def test_what_is_older_than_tls_1_2_is_refused(serve, files):
    server = serve(
        "tls_app:app", *files.options, "--ssl-ciphers", "DEFAULT:@SECLEVEL=0", "--metrics-port", "0"
    )
    context = files.client()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=host)
    wait_for(
        lambda: total(server.metrics(), "obsserve_tls_handshake_failures_total", reason="version") == 1,
        "the count",
    )


def test_a_websocket(serve, files):
    from websockets.sync.client import connect

    server = serve("tls_app:app", *files.options)
    with connect(server.url.replace("https", "wss"), ssl=files.client()) as client:
        told = json.loads(client.recv())
    assert told["scheme"] == "wss"
    assert certificate(told["tls"]["server_cert"]) == certificate(files.cert.read_bytes())


def test_versions_and_ciphers(serve, files):
    server = serve(
        "tls_app:app",
        *files.options,
        "--ssl-version",
        "5",
        "--ssl-ciphers",
        "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384",
    )
    tls = httpx.get(server.url, verify=files.client()).json()["tls"]
    assert tls["tls_version"] == 0x0303
    assert tls["cipher_suite"] in (0xC030, 0xC02C)


def test_an_encrypted_key(serve, files):
    files.encrypt(b"open sesame")
    server = serve(
        "tls_app:app", *files.options, environment={"OBSSERVE_SSL_KEYFILE_PASSWORD": "open sesame"}
    )
    assert httpx.get(server.url, verify=files.client()).status_code == 200


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "says"),
    [
        (lambda f: f.cert.unlink(), [], 3, "cannot be read: No such file"),
        (lambda f: f.key.unlink(), [], 3, "cannot be read: No such file"),
        (lambda f: f.cert.write_text("x"), [], 3, "holds no certificate"),
        (lambda f: f.key.write_text("x"), [], 3, "holds no private key"),
        (lambda f: f.key.write_bytes(trustme.CA().private_key_pem.bytes()), [], 3, "does not belong to"),
        (lambda f: f.encrypt(b"secret"), [], 3, "is encrypted; give --ssl-keyfile-password"),
        (lambda f: f.encrypt(b"secret"), ["--ssl-keyfile-password", "wrong"], 3, "cannot be decrypted"),
        (lambda f: None, ["--ssl-ca-certs", "/nowhere"], 3, "/nowhere cannot be read"),
        (lambda f: None, ["--ssl-cert-reqs", "2"], 3, "give --ssl-ca-certs"),
        (lambda f: None, ["--ssl-ciphers", "none-such"], 3, "names no cipher"),
        (lambda f: None, ["--ssl-version", "3"], 2, "TLS 1.0"),
    ],
)
def test_mistakes_are_one_line(serve, files, spoil, arguments, code, says):
    spoil(files)
    server = serve("tls_app:app", *files.options, *arguments, wait=False)
    assert server.process.wait(20) == code
    text = server.stderr_path.read_text()
    assert says in text
    assert len(text.splitlines()) == 1, text


def test_a_context_of_ones_own(files, capfd):
    called = []

    def factory(config, default_factory):
        called.append(config)
        context = default_factory()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    from tls_app import app

    config = Config(app, port=0, ssl_certfile=files.cert, ssl_keyfile=files.key, ssl_context_factory=factory)

    async def main():
        server = Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(verify=files.client()) as client:
            told = (await client.get(f"https://127.0.0.1:{port}/")).json()
        server.should_exit = True
        await serving
        return told

    assert asyncio.run(main())["tls"]["tls_version"] == 0x0304
    assert called == [config]


def test_the_password_is_not_printed(tmp_path):
    import sys

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "obsserve",
            "tls_app:app",
            "--ssl-keyfile-password",
            "sesame",
            "--print-config",
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "sesame" not in done.stdout
    assert "ssl_keyfile_password is set" in done.stdout
