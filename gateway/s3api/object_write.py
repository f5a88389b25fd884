"""PutObject: a body becomes the newest version of a key, in one command.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from astra.commands import PutDone, PutObject
from astra.model import Checksum
from astra.wire import PlaceBlobs, Placed
from gateway.checksums import ChecksumAlgorithm
from gateway.s3api.acl_request import read_object_head
from gateway.s3api.names import quote_etag
from gateway.s3api.object_head import (
    Headers,
    checksum_headers,
    write_condition,
)
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response
from gateway.upload import Received


async def put_object(request: S3Request) -> S3Response:
    head = await read_object_head(request)
    condition = write_condition(request.headers)
    uploader = request.context.uploader
    received = await uploader.receive(
        request.body, place_with(request), also=default_checksum(request)
    )
    command = PutObject(
        bucket=request.bucket,
        key=request.key,
        head=head,
        etag=received.digests.md5().hex(),
        size=received.size,
        blob=received.blob,
        checksum=computed_checksum(received),
        condition=condition,
    )
    done = await request.session.commit(request.bucket, command, PutDone)
    uploader.settle(received)
    return empty_response(200, put_headers(done))


def default_checksum(request: S3Request) -> ChecksumAlgorithm | None:
    """S3 keeps a CRC64NVME of every object whose client declares no checksum."""
    declared = request.body.declared().algorithm
    return ChecksumAlgorithm.CRC64NVME if declared is None else None


def computed_checksum(received: Received) -> Checksum | None:
    """The checksum to keep with the bytes, computed from what arrived."""
    for algorithm, value in received.digests.checksums().items():
        return Checksum(algorithm=algorithm.value, value=value)
    return None


def put_headers(done: PutDone) -> Headers:
    headers: Headers = [("etag", quote_etag(done.etag)), *checksum_headers(done.checksum)]
    if done.versioned:
        headers.append(("x-amz-version-id", done.version_id))
    return headers


def place_with(
    request: S3Request, *, upload_id: str | None = None
) -> Callable[[int], Awaitable[Placed]]:
    """How the uploader asks the leader where to write, on behalf of this request."""

    async def place(size: int) -> Placed:
        return await request.session.ask(
            request.bucket,
            lambda epochs: PlaceBlobs(
                bucket=request.bucket,
                epochs=epochs,
                size=size,
                key=request.key,
                upload_id=upload_id,
            ),
            Placed,
        )

    return place
