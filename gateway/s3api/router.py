"""Which operation a request is: method, host, path, query and header names to one table row.

Purpose: the only place that reads bucket and key out of a request line.
Rules: pure; decides from the table alone; nothing is guessed. A parameter that the chosen row
does not know is never ignored where it could name a subresource: a bare or known one is refused
(SECURITY S25: `?foo`, `?acl&policy` must not become a listing or a plain read).
Invariants: the key is the rest of the raw path, percent-decoded once and otherwise opaque; the
bucket of a Resolved has a possible name; PUT of a new bucket has an allowed one.
Source: AWS "Virtual hosting of general purpose buckets", error texts as S3 sends them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.s3api.errors import S3Error, header_not_implemented
from gateway.s3api.names import (
    check_bucket_name,
    check_key,
    check_new_bucket_name,
    decode_text,
)
from gateway.s3api.operations import BY_NAME, OPERATIONS, PREFLIGHT, Level, Operation

QUERY_PARAMETERS_MAX: Final = 100

# Presigning and SDK noise; all other parameters that start with x- are ignored as S3 does.
_SIGNING: Final = frozenset({"AWSAccessKeyId", "Signature", "Expires"})
_COPY_SOURCE: Final = "x-amz-copy-source"

# Headers that change what is stored or who may read it. Ignoring one would be a lie: 501.
REFUSED_HEADERS: Final = frozenset(
    {
        "x-amz-write-offset-bytes",
        "x-amz-bucket-object-lock-enabled",
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-object-lock-legal-hold",
        "x-amz-website-redirect-location",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
        "x-amz-copy-source-server-side-encryption-customer-algorithm",
        "x-amz-copy-source-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-key-md5",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the request asks for. `query` holds every parameter once, decoded."""

    operation: Operation
    bucket: str | None = None
    key: str | None = None
    key_bytes: bytes | None = None
    query: Mapping[str, str]


# --- the table, indexed ----------------------------------------------------------------------

_Rows = dict[tuple[Level, str, str | None], list[Operation]]


def _index() -> _Rows:
    """Rows by level, method and subresource; the most demanding row of each first."""
    rows: _Rows = {}
    for op in OPERATIONS:
        if op.alias_of is None and op is not PREFLIGHT:
            rows.setdefault((op.level, op.method, op.subresource), []).append(op)
    for candidates in rows.values():
        candidates.sort(key=lambda op: (len(op.query), op.header is not None), reverse=True)
    return rows


_ROWS: Final = _index()
_SUBRESOURCES: Final = {
    level: frozenset(op.subresource for op in OPERATIONS if op.level is level and op.subresource)
    for level in Level
}
_ALL_SUBRESOURCES: Final = frozenset().union(*_SUBRESOURCES.values())
_NARROWING: Final = frozenset(name for op in OPERATIONS for name, _ in op.query[1:])
_KNOWN: Final = (
    frozenset().union(*(op.optional for op in OPERATIONS)) | _NARROWING | _ALL_SUBRESOURCES
)
_LENIENT: Final = frozenset({"GetObject", "HeadObject"})


# --- query -----------------------------------------------------------------------------------


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Decoded pairs of a raw query string: `+` is a space, a name without `=` has the value ''.

    InvalidURI for malformed escapes or UTF-8; bounded by QUERY_PARAMETERS_MAX.
    """
    pieces = [piece for piece in raw.split(b"&") if piece]
    if len(pieces) > QUERY_PARAMETERS_MAX:
        raise S3Error("InvalidURI", "The request has too many query parameters.")
    pairs = (piece.replace(b"+", b" ").partition(b"=") for piece in pieces)
    return [(decode_text(name), decode_text(value)) for name, _, value in pairs]


def _single_valued(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name; one that is given twice has no meaning both sides would agree on."""
    query: dict[str, str] = {}
    for name, value in items:
        if name in query:
            raise S3Error("InvalidArgument", f"{name} was given more than once.", ArgumentName=name)
        query[name] = value
    return query


# --- bucket and key --------------------------------------------------------------------------


def _virtual_bucket(host: str, domains: tuple[str, ...]) -> str | None:
    """The bucket that the Host names, or None for a path-style request."""
    name = host.lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    name = name.rstrip(".")
    if not name or name in domains:
        return None
    suffixes = [f".{domain}" for domain in domains if name.endswith(f".{domain}")]
    return name.removesuffix(max(suffixes, key=len)) if suffixes else None


def _split(raw_path: bytes, host: str, domains: tuple[str, ...]) -> tuple[str | None, str]:
    """(bucket, key); the key is '' when the path names none."""
    if not raw_path.startswith(b"/"):
        raise S3Error("InvalidURI")
    rest = raw_path[1:]
    bucket = _virtual_bucket(host, domains)
    if bucket is not None:
        return bucket, decode_text(rest)
    if not rest:
        return None, ""
    raw_bucket, _, raw_key = rest.partition(b"/")
    return decode_text(raw_bucket), decode_text(raw_key)


# --- choosing the row ------------------------------------------------------------------------


def _invalid(message: str, name: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName="ResourceType", ArgumentValue=name)


def _subresource(level: Level, query: Mapping[str, str]) -> str | None:
    """The one subresource the query names, or None; two of them conflict."""
    if not query:
        return None
    named = [name for name in query if name in _SUBRESOURCES[level]]
    if len(named) > 1:
        raise _invalid(f"Conflicting query string parameters: {', '.join(named)}", named[0])
    return named[0] if named else None


def _selects(op: Operation, query: Mapping[str, str], headers: Collection[str]) -> bool:
    if op.header is not None and op.header not in headers:
        return False
    return all(name in query and value in (None, query[name]) for name, value in op.query)


def _choose(
    level: Level, method: str, query: Mapping[str, str], headers: Collection[str]
) -> Operation:
    subresource = _subresource(level, query)
    candidates = _ROWS.get((level, method, subresource), ())
    for op in candidates:
        if _selects(op, query, headers):
            return op
    if not candidates or subresource is None:
        raise _method_not_allowed(level, method, subresource, query)
    missing = ", ".join(
        name if value is None else f"{name}={value}" for name, value in candidates[-1].query
    )
    raise _invalid(f"This operation needs the query string parameters: {missing}", subresource)


def _method_not_allowed(
    level: Level, method: str, subresource: str | None, query: Mapping[str, str]
) -> S3Error:
    if subresource is None:
        _refuse_strangers(level, frozenset(), query)
    allowed = sorted({m for lvl, m, sub in _ROWS if lvl is level and sub == subresource})
    return S3Error(
        "MethodNotAllowed",
        headers={"allow": ", ".join(allowed)},
        Method=method,
        ResourceType=(subresource or level.value).upper(),
    )


def _refuse_strangers(
    level: Level, understood: Collection[str], query: Mapping[str, str], *, lenient: bool = False
) -> None:
    """Refuse every parameter that the row does not understand.

    `lenient` (plain reads of an object) lets unknown `name=value` pairs pass, as S3 does: web
    pages append such things to get around caches. A bare name is a subresource of the future.
    """
    for name, value in query.items():
        if name in understood or name in _SIGNING:
            continue
        if name[:2] in ("x-", "X-"):
            _refuse_hoisted(name.lower())
            continue
        if name in _ALL_SUBRESOURCES:
            raise _invalid(
                f"There is no such thing as the ?{name} sub-resource for this {level.value}", name
            )
        if lenient and value:
            continue
        if name in _KNOWN:
            message = f"This operation does not accept the query string parameter {name}"
            raise S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)
        message = "A query parameter you provided implies functionality that is not implemented"
        raise S3Error("NotImplemented", message, Parameter=name)


def _refuse_hoisted(name: str) -> None:
    """Presigners of some SDKs move x-amz- headers into the query; there too, none may be lost."""
    if name == _COPY_SOURCE or name in REFUSED_HEADERS:
        raise header_not_implemented(name)


def _refuse_headers(op: Operation, headers: Collection[str]) -> None:
    if op.method in ("GET", "HEAD", "DELETE"):
        return  # They store nothing, so no header of these can be lost.
    for name in headers:
        if name in REFUSED_HEADERS:
            raise header_not_implemented(name)


def resolve(
    method: str,
    host: str,
    raw_path: bytes,
    query_items: Iterable[tuple[str, str]],
    header_names: Collection[str],
    domains: tuple[str, ...] = (),
) -> Resolved:
    """The operation, bucket and key of a request, or the S3Error that answers it.

    `raw_path` is undecoded and without the query; `query_items` are decoded (see parse_query);
    `header_names` are lower case; `domains` are lower case, without port or trailing dot. The
    operation may have `implemented` False: the caller answers 501 after it authenticated.
    """
    if raw_path == b"/WriteGetObjectResponse" and "x-amz-request-route" in header_names:
        return Resolved(operation=BY_NAME["WriteGetObjectResponse"], query={})
    bucket, key = _split(raw_path, host, domains)
    if bucket is not None:
        check_bucket_name(bucket)
    key_bytes = check_key(key) if key else None
    if method == "OPTIONS" and bucket is not None:
        query = dict(query_items)
        return Resolved(
            operation=PREFLIGHT, bucket=bucket, key=key or None, key_bytes=key_bytes, query=query
        )
    query = _single_valued(query_items)
    level = Level.SERVICE if bucket is None else Level.OBJECT if key else Level.BUCKET
    op = _choose(level, method, query, header_names)
    understood = op.optional.union(name for name, _ in op.query) if query else op.optional
    _refuse_strangers(level, understood, query, lenient=op.name in _LENIENT)
    _refuse_headers(op, header_names)
    if op.name == "CreateBucket" and bucket is not None:
        check_new_bucket_name(bucket)
    return Resolved(operation=op, bucket=bucket, key=key or None, key_bytes=key_bytes, query=query)
