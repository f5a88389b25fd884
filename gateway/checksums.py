"""Checksums of S3: which were declared, what the bytes really give, and how parts combine.

Purpose: Content-MD5, x-amz-content-sha256 and x-amz-checksum-* are computed in one pass over the
body and compared at its end. Follows "Checking object integrity" of the Amazon S3 User Guide.

Rules of this file:
- Pure. `Digests.update` is made for a worker thread: hashlib, zlib and awscrt release the GIL on
  large pieces. It is not made for two threads at once.
- At most one x-amz-checksum-* value per request, in a header or a trailer, never both.
- A value that cannot be right (bad base64, wrong length) is refused before the body is read.
- COMPOSITE = checksum of the parts' checksums, written `b64-N`; FULL_OBJECT = checksum of all
  bytes, for CRCs alone, combined here without reading the object again.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from awscrt import checksums as crt

from gateway.request_errors import ChecksumError
from gateway.request_head import RequestHead

HEADER_PREFIX: Final = "x-amz-checksum-"
# Headers of the same prefix that carry no digest.
_NOT_DIGESTS: Final = frozenset({"algorithm", "mode", "type"})


class ChecksumAlgorithm(Enum):
    """The algorithms of S3 that this server computes; the value is the name on the wire."""

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"

    @property
    def header(self) -> str:
        """The name of its header and trailer, e.g. x-amz-checksum-crc32."""
        return HEADER_PREFIX + self.value.lower()

    @property
    def size(self) -> int:
        """Bytes of one digest."""
        return _SIZES[self]

    @property
    def is_crc(self) -> bool:
        return self.value.startswith("CRC")


class ChecksumType(Enum):
    """What the checksum of a multipart object covers."""

    COMPOSITE = "COMPOSITE"
    FULL_OBJECT = "FULL_OBJECT"


_SIZES: Final = {
    ChecksumAlgorithm.CRC32: 4,
    ChecksumAlgorithm.CRC32C: 4,
    ChecksumAlgorithm.CRC64NVME: 8,
    ChecksumAlgorithm.SHA1: 20,
    ChecksumAlgorithm.SHA256: 32,
}

# The matrix of "Checking object integrity for multipart uploads"; the first type is the default.
MULTIPART_TYPES: Final = {
    ChecksumAlgorithm.CRC32: (ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT),
    ChecksumAlgorithm.CRC32C: (ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT),
    ChecksumAlgorithm.CRC64NVME: (ChecksumType.FULL_OBJECT,),
    ChecksumAlgorithm.SHA1: (ChecksumType.COMPOSITE,),
    ChecksumAlgorithm.SHA256: (ChecksumType.COMPOSITE,),
}

Buffer = bytes | memoryview


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A running CRC with the shape of a hashlib object."""

    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _new_hash(algorithm: ChecksumAlgorithm) -> _Hash:
    match algorithm:
        case ChecksumAlgorithm.CRC32:
            return _Crc(zlib.crc32, 4)
        case ChecksumAlgorithm.CRC32C:
            return _Crc(crt.crc32c, 4)
        case ChecksumAlgorithm.CRC64NVME:
            return _Crc(crt.crc64nvme, 8)
        case ChecksumAlgorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        case ChecksumAlgorithm.SHA256:
            return hashlib.sha256()


class Digests:
    """All digests of one body in one pass. Guarantee: the results cover every byte updated,
    in order; asking for a result does not end the pass.
    """

    def __init__(
        self, algorithms: Iterable[ChecksumAlgorithm] = (), *, md5: bool, sha256: bool
    ) -> None:
        self._checksums = {algorithm: _new_hash(algorithm) for algorithm in algorithms}
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        # The payload hash of the signature and the SHA256 checksum are the same computation.
        shared = self._checksums.get(ChecksumAlgorithm.SHA256)
        self._sha256 = (shared or hashlib.sha256()) if sha256 else None
        own = None if self._sha256 is shared else self._sha256
        self._all: tuple[_Hash, ...] = tuple(
            running for running in (*self._checksums.values(), self._md5, own) if running
        )
        self.size = 0

    def update(self, data: Buffer) -> None:
        """Takes the next bytes of the body. One thread at a time."""
        for running in self._all:
            running.update(data)
        self.size += memoryview(data).nbytes

    def md5(self) -> bytes:
        """The MD5 so far. Raises ValueError when it was not asked for."""
        if self._md5 is None:
            raise ValueError("MD5 was not asked for")
        return self._md5.digest()

    def sha256(self) -> bytes:
        """The SHA-256 so far. Raises ValueError when it was not asked for."""
        if self._sha256 is None:
            raise ValueError("SHA-256 was not asked for")
        return self._sha256.digest()

    def checksum(self, algorithm: ChecksumAlgorithm) -> bytes:
        """One checksum so far. Raises ValueError when it was not asked for."""
        running = self._checksums.get(algorithm)
        if running is None:
            raise ValueError(f"{algorithm.value} was not asked for")
        return running.digest()

    def checksums(self) -> dict[ChecksumAlgorithm, str]:
        """Every x-amz-checksum-* value so far, in base64."""
        return {
            algorithm: encode(running.digest()) for algorithm, running in self._checksums.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredChecksum:
    """What the head promised about the body.

    `algorithm` with `value` None means: the value comes as a trailer (`is_trailer`), or none
    comes and the server computes it on its own account.
    """

    md5: bytes | None = None
    algorithm: ChecksumAlgorithm | None = None
    value: bytes | None = None
    is_trailer: bool = False

    def check(
        self, digests: Digests, *, content_sha256: str | None = None, trailer: str | None = None
    ) -> None:
        """Holds the body against every promise. `trailer` is the text of the checksum trailer.

        Raises `BadDigest`, `XAmzContentSHA256Mismatch`, or what a garbled trailer deserves.
        """
        if self.md5 is not None and not hmac.compare_digest(self.md5, digests.md5()):
            raise ChecksumError(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                {
                    "ExpectedDigest": encode(self.md5),
                    "CalculatedDigest": encode(digests.md5()),
                },
            )
        if content_sha256 is not None:
            _check_content_sha256(content_sha256, digests.sha256().hex())
        if self.algorithm is not None:
            self._check_value(self.algorithm, digests, trailer)

    def _check_value(
        self, algorithm: ChecksumAlgorithm, digests: Digests, trailer: str | None
    ) -> None:
        expected = self.value
        if self.is_trailer:
            if trailer is None:
                raise ChecksumError(
                    "MalformedTrailerError", f"The trailer {algorithm.header} did not come."
                )
            expected = decode(algorithm, trailer, algorithm.header)
        if expected is None:
            return
        if not hmac.compare_digest(expected, digests.checksum(algorithm)):
            raise ChecksumError(
                "BadDigest",
                f"The {algorithm.value} you specified did not match the calculated checksum.",
            )


def _check_content_sha256(declared: str, computed: str) -> None:
    if not hmac.compare_digest(declared, computed):
        raise ChecksumError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            {"ClientComputedContentSHA256": declared, "S3ComputedContentSHA256": computed},
        )


def declared_checksum(head: RequestHead) -> DeclaredChecksum:
    """Reads Content-MD5, x-amz-checksum-*, x-amz-sdk-checksum-algorithm and x-amz-trailer.

    Raises `InvalidDigest` for a garbled MD5, `InvalidRequest` for anything else that is garbled,
    unknown, given twice or contradictory.
    """
    given = _given_values(head)
    announced = _announced_trailers(head)
    if len(given) + len(announced) > 1:
        raise ChecksumError(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    algorithm = _requested_algorithm(head)
    for found in (*(name for name, _ in given), *announced):
        if algorithm is not None and found is not algorithm:
            raise ChecksumError(
                "InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid."
            )
        algorithm = found
    return DeclaredChecksum(
        md5=_content_md5(head),
        algorithm=algorithm,
        value=given[0][1] if given else None,
        is_trailer=bool(announced),
    )


def _given_values(head: RequestHead) -> list[tuple[ChecksumAlgorithm, bytes]]:
    prefix = HEADER_PREFIX.encode()
    found: list[tuple[ChecksumAlgorithm, bytes]] = []
    for raw in head.header_map:
        if raw.startswith(prefix):
            name = raw.decode("latin-1")
            suffix = name.removeprefix(HEADER_PREFIX)
            if suffix not in _NOT_DIGESTS:
                algorithm = parse_algorithm(suffix, name)
                found.append((algorithm, decode(algorithm, head.header(name) or "", name)))
    return found


def _announced_trailers(head: RequestHead) -> list[ChecksumAlgorithm]:
    names = [name.strip().lower() for name in (head.header("x-amz-trailer") or "").split(",")]
    return [
        parse_algorithm(name.removeprefix(HEADER_PREFIX), "x-amz-trailer")
        for name in names
        if name.startswith(HEADER_PREFIX)
    ]


def _requested_algorithm(head: RequestHead) -> ChecksumAlgorithm | None:
    """x-amz-sdk-checksum-algorithm; x-amz-checksum-algorithm is the object's own and read by
    CreateMultipartUpload."""
    name = "x-amz-sdk-checksum-algorithm"
    value = head.header(name)
    return None if value is None else parse_algorithm(value, name)


def _content_md5(head: RequestHead) -> bytes | None:
    value = head.header("content-md5")
    if value is None:
        return None
    digest = _strict_base64(value)
    if digest is None or len(digest) != 16:
        raise ChecksumError(
            "InvalidDigest",
            "The Content-MD5 you specified was invalid.",
            {"Content-MD5": value[:64]},
        )
    return digest


def parse_algorithm(name: str, source: str) -> ChecksumAlgorithm:
    """The algorithm of a name in any case; `source` is the header to blame. Raises
    `InvalidRequest`."""
    try:
        # ASCII first: upper() turns some other letters into ASCII ones.
        return ChecksumAlgorithm(name.upper() if name.isascii() else "")
    except ValueError:
        raise ChecksumError(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with "
            f"any of the valid types: [{', '.join(a.value for a in ChecksumAlgorithm)}]",
            {"ArgumentName": source},
        ) from None


def parse_multipart_type(algorithm: ChecksumAlgorithm, declared: str | None) -> ChecksumType:
    """x-amz-checksum-type of a multipart upload, or the algorithm's default. Raises
    `InvalidRequest` outside the documented matrix."""
    allowed = MULTIPART_TYPES[algorithm]
    if declared is None:
        return allowed[0]
    wanted = declared.upper() if declared.isascii() else ""
    for kind in allowed:
        if kind.value == wanted:
            return kind
    if wanted in ChecksumType.__members__:
        raise ChecksumError(
            "InvalidRequest",
            f"The {wanted} checksum type cannot be used with the "
            f"{algorithm.value.lower()} checksum algorithm.",
        )
    raise ChecksumError("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")


def encode(digest: bytes) -> str:
    """Base64 as S3 writes digests."""
    return b64encode(digest).decode("ascii")


def decode(algorithm: ChecksumAlgorithm, text: str, source: str) -> bytes:
    """The digest of a base64 text. Raises `InvalidRequest` on any other text."""
    digest = _strict_base64(text)
    if digest is None or len(digest) != algorithm.size:
        raise ChecksumError("InvalidRequest", f"Value for {source} header is invalid.")
    return digest


def _strict_base64(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        return None


def composite(algorithm: ChecksumAlgorithm, parts: Sequence[bytes]) -> str:
    """The COMPOSITE checksum of the parts' digests, in part order: `b64-N`."""
    if not parts or any(len(part) != algorithm.size for part in parts):
        raise ValueError(f"composite {algorithm.value} needs digests of {algorithm.size} bytes")
    running = _new_hash(algorithm)
    running.update(b"".join(parts))
    return f"{encode(running.digest())}-{len(parts)}"


def combine_full_object(algorithm: ChecksumAlgorithm, parts: Iterable[tuple[bytes, int]]) -> bytes:
    """The CRC of the whole from (digest, size in bytes) of each part in order, without the data.

    Raises ValueError for algorithms that cannot be combined.
    """
    combine = _COMBINERS.get(algorithm)
    if combine is None:
        raise ValueError(f"{algorithm.value} of parts cannot be combined")
    whole = 0
    for digest, size in parts:
        whole = combine(whole, int.from_bytes(digest, "big"), size)
    return whole.to_bytes(algorithm.size, "big")


_COMBINERS: Final[dict[ChecksumAlgorithm, Callable[[int, int, int], int]]] = {
    ChecksumAlgorithm.CRC32: crt.combine_crc32,
    ChecksumAlgorithm.CRC32C: crt.combine_crc32c,
    ChecksumAlgorithm.CRC64NVME: crt.combine_crc64nvme,
}


def multipart_etag(md5s: Sequence[bytes]) -> str:
    """The ETag of a multipart object, unquoted: hex MD5 of the parts' MD5s, `-N`."""
    joined = hashlib.md5(b"".join(md5s), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(md5s)}"
