"""What a log or a span may say about a request's query: one policy for both.

Keys are kept, values are not, unless the policy allows them. A piece without `=` may be a value as
well as a key, so it counts as a value. `;` separates like `&`, because some frameworks read it so:
otherwise a secret could ride behind an allowed key.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args
from urllib.parse import unquote_plus

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
