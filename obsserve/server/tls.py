"""TLS contexts: made from the options, renewed when their files change.

Owns the context that new connections get. A changed file makes a whole new context, which takes the old one's
place in one step: what cannot be loaded never serves anybody, and connections that are open keep what they have.
Files are looked at once a second and loaded when they have been still for a second, because certificate and key
are hardly ever replaced in the same moment.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from obsserve.errors import StartupError
from obsserve.server.certificates import validity

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.config import Config
    from obsserve.settings import Settings

    Signature = tuple[tuple[int, int, int] | None, ...]

TLS_1_2_ONLY: Final = 5  # ssl.PROTOCOL_TLSv1_2, which is deprecated: a range of versions says the same


def server_context(config: Config) -> ssl.SSLContext | None:
    """Return the context that the options describe; None when they ask for no TLS.

    Raises:
        StartupError: a file cannot be used, with its name and what to do.
    """
    settings = config.settings
    factory = settings.ssl_context_factory
    if factory is None:
        return default_context(settings) if config.is_ssl else None

    from obsserve.importer import application_traceback  # noqa: PLC0415  (for a mistake only)

    try:
        context = factory(config, lambda: default_context(settings))
    except StartupError:
        raise
    except Exception as error:
        reason = f"Cannot serve TLS: ssl_context_factory raised {type(error).__name__}."
        raise StartupError(reason, application_traceback(error)) from error
    if not isinstance(context, ssl.SSLContext):
        raise StartupError(
            f"Cannot serve TLS: ssl_context_factory returned a {type(context).__name__}, not an ssl.SSLContext."
        )
    return context


def default_context(settings: Settings) -> ssl.SSLContext:
    """Return a context of TLS 1.2 and later (RFC 9325 3.1.1) with OpenSSL's own ciphers unless others are named.

    Raises:
        StartupError: a file cannot be used, with its name and what to do.
    """
    if settings.ssl_certfile is None:
        raise StartupError("Cannot serve TLS: there is no certificate; give --ssl-certfile.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ssl_version == TLS_1_2_ONLY:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    # A client that leaves without close_notify is ordinary in HTTP, and its requests say where they end.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, settings)
    _load_authorities(context, settings)
    if settings.ssl_ciphers is not None:
        try:
            context.set_ciphers(settings.ssl_ciphers)
        except ssl.SSLError:
            raise StartupError(
                f"Cannot serve TLS: ssl_ciphers {settings.ssl_ciphers!r} names no cipher that OpenSSL has."
            ) from None
    return context


def _load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    certfile, keyfile = settings.ssl_certfile, settings.ssl_keyfile
    assert certfile is not None
    certificate = _contents("ssl_certfile", certfile)
    key = certificate if keyfile is None else _contents("ssl_keyfile", keyfile)
    key_name = "ssl_certfile" if keyfile is None else "ssl_keyfile"
    key_path = keyfile or certfile
    password = settings.ssl_keyfile_password
    asked = False

    def give_password() -> str:
        nonlocal asked
        asked = True  # without a function OpenSSL would ask on the terminal, and a service wait for ever
        return password or ""

    try:
        context.load_cert_chain(certfile, keyfile, give_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        if b"-----BEGIN CERTIFICATE" not in certificate:
            what = f"ssl_certfile {certfile} holds no certificate in PEM form"
        elif b"PRIVATE KEY-----" not in key:
            hint = "; give --ssl-keyfile" if keyfile is None else " in PEM form"
            what = f"{key_name} {key_path} holds no private key{hint}"
        elif getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            what = f"the key in {key_path} does not belong to the certificate in {certfile}"
        elif asked and not password:
            what = f"the key in {key_path} is encrypted; give --ssl-keyfile-password"
        elif asked:
            what = f"the key in {key_path} cannot be decrypted: ssl_keyfile_password is wrong"
        else:
            reason = getattr(error, "reason", None) or error
            what = f"{certfile} and {key_path} cannot be loaded: {reason}"
        raise StartupError(f"Cannot serve TLS: {what}.") from None


def _load_authorities(context: ssl.SSLContext, settings: Settings) -> None:
    authorities = settings.ssl_ca_certs
    if authorities is not None:
        _contents("ssl_ca_certs", authorities)
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError:
            raise StartupError(
                f"Cannot serve TLS: ssl_ca_certs {authorities} holds no certificate in PEM form."
            ) from None
    elif settings.ssl_cert_reqs and settings.ssl_context_factory is None:
        raise StartupError(
            "Cannot serve TLS: ssl_cert_reqs asks for client certificates, but nothing says whose; "
            "give --ssl-ca-certs."
        )
    context.verify_mode = ssl.VerifyMode(settings.ssl_cert_reqs)


def _contents(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartupError(
            f"Cannot serve TLS: {option} {path} cannot be read: {error.strerror or error}."
        ) from None


class TLS:
    """The context of new connections, and its renewal.

    Args:
        config: the options; `config.ssl` follows the renewal.
        log: the server's logger.
        counted: called with `success` or `failure` for each reload, and with the certificate's expiry in
            epoch seconds, None when it is not known.
    """

    def __init__(self, config: Config, log: Any, counted: Callable[[str | None, float | None], None]) -> None:
        assert config.ssl is not None
        settings = config.settings
        self._config = config
        self._log = log
        self._counted = counted
        self._files = tuple(
            path
            for path in (settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_ca_certs)
            if path is not None
        )
        # What changed between the loading and now is found by the first look: it compares contents with this.
        self._loaded = self._seen = self._signature()
        self._take(config.ssl)
        counted(None, self.expiry)

    def _take(self, context: ssl.SSLContext) -> None:
        self.context = self._config.ssl = context
        self.certificate, self.expiry = validity(context)
        self.suites = {cipher["name"]: int(cipher["id"]) & 0xFFFF for cipher in context.get_ciphers()}

    def check(self) -> None:
        """Load the files again if they have changed and stand still; meant for once a second."""
        signature = self._signature()
        still, self._seen = signature == self._seen, signature
        if signature == self._loaded or not still:
            return
        self._loaded = signature
        try:
            context = server_context(self._config)
            assert context is not None
        except (StartupError, ssl.SSLError, OSError) as error:
            self._counted("failure", self.expiry)
            self._log.error(
                "tls.reload_failed",
                message=f"{error} The certificate that was loaded before is served on.",
            )
            return
        self._take(context)
        self._counted("success", self.expiry)
        self._log.info("tls.reloaded", message="The changed certificate files are served from now on")

    def _signature(self) -> Signature:
        return tuple(_stat(path) for path in self._files)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
