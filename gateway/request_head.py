"""The head of one HTTP request, exactly as it was received, and the only decoding of it.

Purpose: signature check, routing and storage must see *the same* key and the same parameters
(SECURITY S15: a signature made for one key must never open another). So the raw bytes are kept,
and everyone decodes them here.

Rules of this file:
- Percent-decoding happens once and is strict: `%` without two hex digits, or bytes that are not
  UTF-8, refuse the request (`InvalidURI`); nothing is normalised (`//`, `/./`, NFC/NFD stay).
- In a query `+` is a space, as in form encoding and at AWS (clients that mean a plus sign send
  `%2B`; botocore, the Go, Java and JavaScript SDKs all do). In a path `+` is a plus sign.
- A repeated header reads as its values joined by `,`: that is the text that was signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, overload
from urllib.parse import unquote_to_bytes

from gateway.request_errors import RequestError

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def percent_decode(raw: bytes) -> bytes:
    """Decodes `%XX` exactly once. Raises `InvalidURI` on a damaged escape."""
    if b"%" not in raw:
        return raw
    if _BAD_ESCAPE.search(raw):
        raise RequestError("InvalidURI", "Couldn't parse the specified URI.")
    return unquote_to_bytes(raw)


def _text(decoded: bytes) -> str:
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise RequestError("InvalidURI", "The URI is not valid UTF-8 after decoding.") from None


_Value = TypeVar("_Value")


class _Lazy(Generic[_Value]):
    """functools.cached_property without its lock, which costs 2 us per value on Python 3.11.

    Two threads may both compute a value; they compute the same one.
    """

    def __init__(self, compute: Callable[[RequestHead], _Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, head: None, owner: type) -> _Lazy[_Value]: ...
    @overload
    def __get__(self, head: RequestHead, owner: type) -> _Value: ...
    def __get__(self, head: RequestHead | None, owner: type) -> _Value | _Lazy[_Value]:
        if head is None:
            return self
        # From now on the instance's own dict answers, and this descriptor is not asked again.
        value = head.__dict__[self._name] = self._compute(head)
        return value


# No slots: lazy values live in __dict__, and most heads never ask for most of them.
@dataclass(frozen=True, repr=False)
class RequestHead:
    """One request head. Guarantee: equal heads mean equal bytes on the wire.

    `raw_path` is percent-encoded and has no query; `query` is raw, without `?`; `headers` hold
    lower-cased names in the order of arrival.
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    def __repr__(self) -> str:
        # Headers and query carry signatures and tokens; they must not reach a log by accident.
        return f"RequestHead({self.method!r}, {self.raw_path!r}, {len(self.headers)} headers)"

    @_Lazy
    def header_map(self) -> dict[bytes, list[bytes]]:
        """All values of each header, in order of arrival. Not to be changed by the reader."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
        return found

    def header(self, name: str) -> str | None:
        """The stripped value (repeats joined by `,`), or None when the header is absent."""
        values = self.header_map.get(name.encode("latin-1"))
        if values is None:
            return None
        return b",".join(values).decode("latin-1").strip(" \t")

    def header_values(self, name: str) -> tuple[str, ...]:
        """Every value of a header, one per line of the request."""
        values = self.header_map.get(name.encode("latin-1"), [])
        return tuple(value.decode("latin-1").strip(" \t") for value in values)

    @_Lazy
    def query_pairs(self) -> tuple[tuple[bytes, bytes], ...]:
        """The decoded query in order, as bytes. Raises `InvalidURI`."""
        pairs: list[tuple[bytes, bytes]] = []
        for part in self.query.split(b"&"):
            if part:
                name, _, value = part.replace(b"+", b" ").partition(b"=")
                pairs.append((percent_decode(name), percent_decode(value)))
        return tuple(pairs)

    @_Lazy
    def _query_text(self) -> tuple[tuple[str, str], ...]:
        return tuple((_text(name), _text(value)) for name, value in self.query_pairs)

    def query_items(self) -> tuple[tuple[str, str], ...]:
        """The decoded query in order; `?acl` reads as ("acl", ""). Raises `InvalidURI`."""
        return self._query_text

    @_Lazy
    def path_bytes(self) -> bytes:
        """The path decoded once, not normalised. Raises `InvalidURI`."""
        return percent_decode(self.raw_path)

    @_Lazy
    def path(self) -> str:
        """The path decoded once as text, e.g. "/bucket/a key". Raises `InvalidURI`."""
        return _text(self.path_bytes)
