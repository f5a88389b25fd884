"""Checksums over HTTP: of objects, of parts, and of what parts become."""

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from awscrt import checksums as crt
from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer, refused

MIB = 1 << 20
BODIES = (os.urandom(5 * MIB), os.urandom(5 * MIB + 7), b"tail")

# The digests by other means than the server's own classes.
DIGESTS: Mapping[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}
KINDS = [
    ("CRC32", "COMPOSITE"),
    ("CRC32", "FULL_OBJECT"),
    ("CRC32C", "COMPOSITE"),
    ("CRC32C", "FULL_OBJECT"),
    ("CRC64NVME", "FULL_OBJECT"),
    ("SHA1", "COMPOSITE"),
    ("SHA256", "COMPOSITE"),
]


def digest(algorithm: str, data: bytes) -> str:
    return base64.b64encode(DIGESTS[algorithm](data)).decode()


def whole(algorithm: str, kind: str, bodies: tuple[bytes, ...]) -> str:
    if kind == "FULL_OBJECT":
        return digest(algorithm, b"".join(bodies))
    of_parts = b"".join(DIGESTS[algorithm](body) for body in bodies)
    return f"{digest(algorithm, of_parts)}-{len(bodies)}"


class Upload:
    """A multipart upload of "key" with a checksum."""

    def __init__(self, s3: S3Client, bucket: str, algorithm: str, kind: str | None) -> None:
        self.s3 = s3
        self.name = f"Checksum{algorithm}"
        self.algorithm = algorithm
        self.place: dict[str, Any] = {"Bucket": bucket, "Key": "key"}
        more: Any = {"ChecksumAlgorithm": algorithm}
        if kind is not None:
            more["ChecksumType"] = kind
        self.started: Any = s3.create_multipart_upload(**self.place, **more)
        self.place["UploadId"] = self.started["UploadId"]
        self.parts: list[Any] = []

    def send(self, body: bytes) -> None:
        """A part that says its checksum, which then is among `parts`."""
        number = len(self.parts) + 1
        value = digest(self.algorithm, body)
        checksum: Any = {self.name: value}
        sent: Any = self.s3.upload_part(**self.place, PartNumber=number, Body=body, **checksum)
        assert sent[self.name] == value
        self.parts.append({"PartNumber": number, "ETag": sent["ETag"], self.name: value})

    def end(self, **more: Any) -> Any:
        upload: Any = {"Parts": self.parts}
        return self.s3.complete_multipart_upload(**self.place, MultipartUpload=upload, **more)


@pytest.mark.parametrize("algorithm", DIGESTS)
@pytest.mark.parametrize("size", [0, 10, 70_000])
def test_put_with_a_checksum_keeps_it(s3: S3Client, bucket: str, algorithm: Any, size: int) -> None:
    name, body = f"Checksum{algorithm}", BODIES[0][:size]
    put: Any = s3.put_object(Bucket=bucket, Key="key", Body=body, ChecksumAlgorithm=algorithm)
    assert put[name] == digest(algorithm, body)
    head: Any = s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert head[name] == digest(algorithm, body)
    assert head["ChecksumType"] == "FULL_OBJECT"
    assert name not in s3.head_object(Bucket=bucket, Key="key")
    found = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found["Body"].read() == body  # the SDK checks it as well


@pytest.mark.parametrize("algorithm", DIGESTS)
@pytest.mark.parametrize("size", [10, 70_000])
def test_put_with_a_wrong_checksum_leaves_nothing(
    s3: S3Client, bucket: str, algorithm: str, size: int
) -> None:
    wrong: Any = {f"Checksum{algorithm}": digest(algorithm, b"something else")}
    found = answer(lambda: s3.put_object(Bucket=bucket, Key="key", Body=BODIES[0][:size], **wrong))
    assert found == (400, "BadDigest")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(("algorithm", "kind"), KINDS)
def test_multipart_checksum_is_of_the_parts_or_of_all_bytes(
    s3: S3Client, bucket: str, algorithm: str, kind: str
) -> None:
    upload = Upload(s3, bucket, algorithm, kind)
    assert upload.started["ChecksumAlgorithm"] == algorithm
    assert upload.started["ChecksumType"] == kind
    for body in BODIES:
        upload.send(body)
    expected = whole(algorithm, kind, BODIES)
    done = upload.end(**{upload.name: expected, "ChecksumType": kind})
    assert done[upload.name] == expected
    assert done["ChecksumType"] == kind
    head: Any = s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert head[upload.name] == expected
    assert head["ChecksumType"] == kind
    part: Any = s3.get_object(Bucket=bucket, Key="key", PartNumber=2, ChecksumMode="ENABLED")
    assert part["Body"].read() == BODIES[1]
    assert part[upload.name] == digest(algorithm, BODIES[1])
    assert part["ChecksumType"] == kind
    listed: Any = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert listed["ChecksumAlgorithm"] == [algorithm]
    assert listed["ChecksumType"] == kind


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_default_type_of_an_algorithm_is_the_first_that_s3_names(
    s3: S3Client, bucket: str, algorithm: str
) -> None:
    upload = Upload(s3, bucket, algorithm, None)
    expected = "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"
    assert upload.started["ChecksumType"] == expected
    listed = s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    assert listed["ChecksumAlgorithm"] == algorithm
    assert listed["ChecksumType"] == expected


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC64NVME", "COMPOSITE"),
        ("SHA1", "FULL_OBJECT"),
        ("SHA256", "FULL_OBJECT"),
        ("CRC32", "HALF"),
        ("MD4", "COMPOSITE"),
    ],
)
def test_upload_outside_of_the_matrix_is_invalid_request(
    s3: S3Client, bucket: str, algorithm: str, kind: str
) -> None:
    found = answer(lambda: Upload(s3, bucket, algorithm, kind))
    assert found == (400, "InvalidRequest")


def test_checksum_type_without_an_algorithm_is_invalid_request(s3: S3Client, bucket: str) -> None:
    found = answer(
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="key", ChecksumType="COMPOSITE")
    )
    assert found == (400, "InvalidRequest")


def test_part_with_another_algorithm_than_its_upload_is_refused(s3: S3Client, bucket: str) -> None:
    upload = Upload(s3, bucket, "SHA256", None)
    found = refused(
        lambda: s3.upload_part(
            **upload.place, PartNumber=1, Body=b"x", ChecksumCRC32=digest("CRC32", b"x")
        )
    )
    assert (found.status, found.code) == (400, "InvalidRequest")
    assert found.message == (
        "Checksum Type mismatch occurred, expected checksum Type: sha256, "
        "actual checksum Type: crc32"
    )


@pytest.mark.parametrize("body", [b"x", BODIES[0]], ids=["small", "large"])
def test_part_with_a_wrong_checksum_is_not_kept(s3: S3Client, bucket: str, body: bytes) -> None:
    upload = Upload(s3, bucket, "SHA256", None)
    found = answer(
        lambda: s3.upload_part(
            **upload.place, PartNumber=1, Body=body, ChecksumSHA256=digest("SHA256", b"y")
        )
    )
    assert found == (400, "BadDigest")
    assert "Parts" not in s3.list_parts(**upload.place)


def test_list_parts_shows_the_checksum_of_each_part(s3: S3Client, bucket: str) -> None:
    upload = Upload(s3, bucket, "SHA1", None)
    upload.send(b"x")
    found = s3.list_parts(**upload.place)
    assert found["ChecksumAlgorithm"] == "SHA1"
    assert found["ChecksumType"] == "COMPOSITE"
    assert found["Parts"][0]["ChecksumSHA1"] == digest("SHA1", b"x")


def test_complete_with_a_wrong_checksum_of_a_part_is_invalid_part(
    s3: S3Client, bucket: str
) -> None:
    upload = Upload(s3, bucket, "CRC32", None)
    upload.send(b"x")
    upload.parts[0]["ChecksumCRC32"] = digest("CRC32", b"y")
    assert answer(upload.end) == (400, "InvalidPart")


@pytest.mark.parametrize("value", ["bad", "AAAAAA==", "AAAAAA==-1"])
def test_complete_with_a_wrong_checksum_of_the_whole_is_bad_digest(
    s3: S3Client, bucket: str, value: str
) -> None:
    upload = Upload(s3, bucket, "CRC32", "COMPOSITE")
    upload.send(b"x")
    assert answer(lambda: upload.end(ChecksumCRC32=value)) == (400, "BadDigest")
    assert answer(lambda: s3.head_object(Bucket=bucket, Key="key"))[0] == 404
    assert upload.end(ChecksumCRC32=whole("CRC32", "COMPOSITE", (b"x",)))


def test_complete_with_another_type_or_algorithm_is_invalid_request(
    s3: S3Client, bucket: str
) -> None:
    upload = Upload(s3, bucket, "CRC32", "COMPOSITE")
    upload.send(b"x")
    invalid = (400, "InvalidRequest")
    assert answer(lambda: upload.end(ChecksumType="FULL_OBJECT")) == invalid
    assert answer(lambda: upload.end(ChecksumSHA1=digest("SHA1", b"x"))) == invalid


def test_upload_without_an_algorithm_takes_parts_with_any(s3: S3Client, bucket: str) -> None:
    """As the SDK sends them by default; the object then has the CRC of all its bytes."""
    place: dict[str, Any] = {"Bucket": bucket, "Key": "key"}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    sent = [s3.upload_part(**place, PartNumber=n, Body=body) for n, body in enumerate(BODIES, 1)]
    parts: list[Any] = [
        {"PartNumber": n, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}
        for n, part in enumerate(sent, 1)
    ]
    done = s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert done["ChecksumCRC32"] == digest("CRC32", b"".join(BODIES))
    assert done["ChecksumType"] == "FULL_OBJECT"


def test_parts_with_different_algorithms_make_an_object_without_checksum(
    s3: S3Client, bucket: str
) -> None:
    place: dict[str, Any] = {"Bucket": bucket, "Key": "key"}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    one = s3.upload_part(**place, PartNumber=1, Body=BODIES[0])
    two = s3.upload_part(**place, PartNumber=2, Body=b"x", ChecksumAlgorithm="SHA1")
    parts: list[Any] = [
        {"PartNumber": 1, "ETag": one["ETag"]},
        {"PartNumber": 2, "ETag": two["ETag"]},
    ]
    done = s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert not [name for name in done if name.startswith("Checksum")]
    found = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found["Body"].read() == BODIES[0] + b"x"


@pytest.mark.parametrize(("algorithm", "kind"), KINDS)
def test_copied_parts_have_the_checksum_of_their_upload(
    s3: S3Client, bucket: str, algorithm: str, kind: str
) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=BODIES[1])
    upload = Upload(s3, bucket, algorithm, kind)
    body = BODIES[1][3:-1]
    copied: Any = s3.upload_part_copy(
        **upload.place,
        PartNumber=1,
        CopySource=f"{bucket}/source",
        CopySourceRange=f"bytes=3-{len(BODIES[1]) - 2}",
    )["CopyPartResult"]
    assert copied[upload.name] == digest(algorithm, body)
    upload.parts.append({"PartNumber": 1, "ETag": copied["ETag"]})
    upload.send(b"tail")
    done = upload.end()
    assert done[upload.name] == whole(algorithm, kind, (body, b"tail"))


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_copy_with_another_algorithm_computes_it(s3: S3Client, bucket: str, algorithm: Any) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=BODIES[0])
    same: Any = s3.copy_object(Bucket=bucket, Key="same", CopySource=f"{bucket}/source")
    assert same["CopyObjectResult"]["ChecksumCRC32"] == digest("CRC32", BODIES[0])
    other: Any = s3.copy_object(
        Bucket=bucket,
        Key="other",
        CopySource=f"{bucket}/source",
        ChecksumAlgorithm=algorithm,
    )["CopyObjectResult"]
    assert other[f"Checksum{algorithm}"] == digest(algorithm, BODIES[0])
    head: Any = s3.head_object(Bucket=bucket, Key="other", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == digest(algorithm, BODIES[0])
    assert head["ChecksumType"] == "FULL_OBJECT"


def test_copy_of_a_composite_checksum_keeps_it_until_another_is_asked_for(
    s3: S3Client, bucket: str
) -> None:
    upload = Upload(s3, bucket, "CRC32", "COMPOSITE")
    upload.send(BODIES[0])
    upload.send(b"tail")
    upload.end()
    kept = s3.copy_object(Bucket=bucket, Key="kept", CopySource=f"{bucket}/key")
    result = kept["CopyObjectResult"]
    assert result["ChecksumCRC32"] == whole("CRC32", "COMPOSITE", (BODIES[0], b"tail"))
    assert result["ChecksumType"] == "COMPOSITE"
    computed = s3.copy_object(
        Bucket=bucket, Key="full", CopySource=f"{bucket}/key", ChecksumAlgorithm="CRC32"
    )["CopyObjectResult"]
    assert computed["ChecksumCRC32"] == digest("CRC32", BODIES[0] + b"tail")
    assert computed["ChecksumType"] == "FULL_OBJECT"
