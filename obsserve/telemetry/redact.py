"""What a log or a span may say about a request: its query, its client's address, its headers.

One policy for both signals. Of a query, keys are kept, values are not, unless the policy allows them. A piece without `=` may be a value as
well as a key, so it counts as a value. `;` separates like `&`, because some frameworks read it so:
otherwise a secret could ride behind an allowed key.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, get_args
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

QueryMode = Literal["redact-all", "redact-listed", "drop", "keep"]
_MODES: Final[dict[str, QueryMode]] = {mode: mode for mode in get_args(QueryMode)}

REDACTED: Final = "REDACTED"

# The query keys that OpenTelemetry's semantic conventions (url.query) want redacted, in lower case.
SENSITIVE_QUERY_KEYS: Final = frozenset(
    {
        "awsaccesskeyid",
        "sig",
        "signature",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-signature",
    }
)
# And what names a secret wherever it stands in a key or a header's name.
SENSITIVE_WORD: Final = re.compile(
    r"api[-_]?key|authorization|cookie|credential|passw|pwd|secret|session|token", re.IGNORECASE
)

_SEPARATOR = re.compile("([&;])")

AddressMode = Literal["keep", "mask", "hash", "drop"]

# The headers whose values are URLs, which carry queries and user-info of their own.
_URL_HEADERS: Final = frozenset(
    [
        "content-location",
        "location",
        "origin",
        "referer",
        "referrer",
        "refresh",
        "x-forwarded-uri",
        "x-original-uri",
        "x-original-url",
        "x-rewrite-url",
    ]
)
# The attributes of OpenTelemetry's conventions, past and present, that hold a URL, a target or a query.
_URL_ATTRIBUTES: Final = frozenset(["http.target", "http.url", "url.full", "url.original", "url.query"])
_USER_INFO: Final = re.compile(r"//[^/?#@]*@")
# Regular expressions of header names, separated by commas; as in OpenTelemetry's own instrumentation.
SANITIZE_VARIABLE: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
_HASH_DIGITS: Final = 16
_MASKED_BITS: Final = {4: 24, 6: 48}
_REMEMBERED: Final = 4096


class QueryPolicy:
    """Decides what of a query string leaves the process.

    Args:
        mode: `redact-all` keeps keys and hides values; `redact-listed` hides the values of keys that
            name a secret; `drop` leaves the query out; `keep` leaves it as it is.
        allow: keys whose values are shown by the two redacting modes (exact, after percent-decoding).
    """

    __slots__ = ("_allow", "mode")

    def __init__(self, mode: QueryMode, allow: tuple[str, ...] = ()) -> None:
        self.mode = mode
        self._allow = frozenset(allow)

    def apply(self, query: str) -> str | None:
        """Return the text to report for this raw query string, None when nothing is to be said."""
        if self.mode == "drop":
            return None
        if self.mode == "keep":
            return query
        pieces = _SEPARATOR.split(query)
        pieces[::2] = [self._piece(piece) for piece in pieces[::2]]
        return "".join(pieces)

    def _piece(self, piece: str) -> str:
        key, equals, value = piece.partition("=")
        # The application sees the decoded key, so that is what the lists are asked about.
        if self._shown(unquote_plus(key)):
            return piece
        if equals:
            return f"{key}={REDACTED}" if value else piece
        return REDACTED if piece else piece

    def _shown(self, key: str) -> bool:
        if key in self._allow:
            return True
        if self.mode == "redact-all":
            return False
        return key.lower() not in SENSITIVE_QUERY_KEYS and SENSITIVE_WORD.search(key) is None


def query_policy(
    setting: str, line_format: Literal["json", "console"], allow: tuple[str, ...]
) -> QueryPolicy:
    """Return the policy for `--log-query`; `auto` redacts what is stored and keeps what a terminal shows."""
    mode = _MODES.get(setting)
    if mode is None:
        mode = "redact-all" if line_format == "json" else "keep"
    return QueryPolicy(mode, allow)


def hashed(key: bytes, value: str) -> str:
    """Return 64 bits of the value's keyed hash as hex digits: equal values stay equal, and nothing else.

    Without the key the few values that an address can have could be tried out.
    """
    import hmac  # noqa: PLC0415  (only for those who have something hashed)

    return hmac.digest(key, value.encode("utf-8", "backslashreplace"), "sha256").hex()[:_HASH_DIGITS]


def masked(address: str) -> str:
    """Return the network of an address, /24 of IPv4 and /48 of IPv6; what is no address is hidden.

    The path of a UNIX socket is nobody's address and stays.
    """
    if address.startswith("/"):
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return REDACTED if address else address
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found, _MASKED_BITS[found.version]), strict=False).network_address)


class AddressPolicy:
    """Decides what of a client's address leaves the process.

    Args:
        mode: `mask` keeps the network, `hash` a keyed hash, `drop` nothing.
        key: of the hash.
    """

    __slots__ = ("apply", "mode")

    def __init__(self, mode: AddressMode, key: bytes = b"") -> None:
        self.mode = mode
        # Bounded, because clients choose what X-Forwarded-For says.
        self.apply: Callable[[str], str | None] = lru_cache(_REMEMBERED)(
            {
                "mask": masked,
                "hash": lambda address: hashed(key, address),
                "drop": lambda _address: None,
            }.get(mode, str)
        )


class HeaderPolicy:
    """Decides what of a header's value leaves the process.

    Args:
        query: for the headers that hold URLs.
        sensitive: regular expressions of further names whose values are hidden.
    """

    __slots__ = ("_query", "_sensitive")

    def __init__(self, query: QueryPolicy, sensitive: Iterable[str] = ()) -> None:
        self._query = query
        self._sensitive = [re.compile(pattern, re.IGNORECASE) for pattern in sensitive]

    def hides(self, name: str) -> bool:
        """Return whether the values of this header are never shown."""
        return SENSITIVE_WORD.search(name) is not None or any(word.search(name) for word in self._sensitive)

    def shown(self, name: str) -> Callable[[bytes], str]:
        """Return what makes a reportable text of a value of this header."""
        if self.hides(name):
            return lambda _value: REDACTED
        if name.lower() in _URL_HEADERS:
            return lambda value: self.url(value.decode("utf-8", "backslashreplace"))
        return lambda value: value.decode("utf-8", "backslashreplace")

    def url(self, text: str) -> str:
        """Return a URL without user-info, its query under the query's policy."""
        text = _USER_INFO.sub("//", text)
        base, question, query = text.partition("?")
        if not question:
            return text
        query, sharp, fragment = query.partition("#")
        shown = self._query.apply(query)
        return base if shown is None else f"{base}?{shown}{sharp}{fragment}"


class AttributePolicy:
    """Decides what of a span's attributes leaves the process that somebody else than the server has set.

    Instrumentation, a framework's own included, writes URLs as they came.

    Args:
        query: for the URLs and queries among them.
    """

    __slots__ = ("_query", "_url")

    def __init__(self, query: QueryPolicy) -> None:
        self._query = query
        self._url = HeaderPolicy(query).url

    def apply(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return attributes as they may be shown: the same object where nothing is to be hidden."""
        if _URL_ATTRIBUTES.isdisjoint(attributes):
            return attributes
        shown = dict(attributes)
        for name in _URL_ATTRIBUTES.intersection(shown):
            value = shown[name]
            if not isinstance(value, str):
                continue
            text = self._query.apply(value) if name == "url.query" else self._url(value)
            if text is None:
                del shown[name]
            else:
                shown[name] = text
        return shown


def sensitive_headers(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the patterns that the environment adds; one that is no regular expression is a literal."""
    patterns = []
    for word in environ.get(SANITIZE_VARIABLE, "").split(","):
        pattern = word.strip()
        try:
            re.compile(pattern)
        except re.error:
            pattern = re.escape(pattern)
        if pattern:
            patterns.append(pattern)
    return tuple(patterns)


class RedactionSettings(Protocol):
    """What the redaction reads of the server's settings."""

    @property
    def log_query(self) -> str: ...
    @property
    def log_query_allow(self) -> tuple[str, ...]: ...
    @property
    def log_client_ip(self) -> str: ...
    @property
    def log_hash_key(self) -> str | None: ...


class Redaction(NamedTuple):
    """The policy of one signal.

    Args:
        query: what may be said of a query.
        headers: what may be said of a header.
        address: what may be said of an address; None when all may.
    """

    query: QueryPolicy
    headers: HeaderPolicy
    address: AddressPolicy | None = None

    def address_text(self, address: str) -> str | None:
        return address if self.address is None else self.address.apply(address)

    def client(self, client: Any) -> Any:
        """Return an address and port as they may be shown; None when they may not."""
        if client is None or self.address is None:
            return client
        text = self.address.apply(client[0])
        return None if text is None else (text, client[1])


_ADDRESS_MODES: Final[dict[str, AddressMode]] = {mode: mode for mode in get_args(AddressMode)}


def redaction(settings: RedactionSettings, line_format: Literal["json", "console"]) -> Redaction:
    """Return the policy that the options ask for.

    Args:
        settings: the options.
        line_format: of the lines, which decides what `--log-query auto` means.
    """
    query = query_policy(settings.log_query, line_format, settings.log_query_allow)
    address = None
    mode = _ADDRESS_MODES[settings.log_client_ip]
    if mode != "keep":
        address = AddressPolicy(mode, (settings.log_hash_key or "").encode())
    return Redaction(query, HeaderPolicy(query, sensitive_headers(os.environ)), address)
