"""ListBuckets: the buckets of who asks, in the order of their names.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListBuckets.html
"""

from __future__ import annotations

from astra import wire
from astra.model import Bucket
from gateway.s3api import xmlwriter
from gateway.s3api.bucket import region_of
from gateway.s3api.documents import BucketEntry, BucketsPage, Owner
from gateway.s3api.listing_tokens import decode_buckets_token, encode_buckets_token
from gateway.s3api.names import check_list_text, parse_max_buckets
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response


async def list_buckets(request: S3Request) -> S3Response:
    query = request.query
    limit = parse_max_buckets(query)
    prefix = check_list_text("prefix", query.get("prefix", ""))
    token = query.get("continuation-token")
    after = decode_buckets_token(token).after if token else ""
    buckets, has_more = await _collect(
        request, prefix=prefix, after=after, limit=limit, region=query.get("bucket-region")
    )
    user = request.session.grantee.user
    page = BucketsPage(
        owner=Owner(owner_id=user.user_id, display_name=user.display_name),
        buckets=[_entry(request, bucket) for bucket in buckets],
        prefix=query.get("prefix"),
        continuation_token=encode_buckets_token(buckets[-1].name) if has_more else None,
    )
    return xml_response(xmlwriter.render_buckets(page))


async def _collect(
    request: S3Request, *, prefix: str, after: str, limit: int, region: str | None
) -> tuple[list[Bucket], bool]:
    """Up to `limit` buckets (of one region, when it is given), and whether there are more.

    One owner has so few buckets that the region is picked out here; no page is empty while a
    later one is not.
    """
    found: list[Bucket] = []
    while True:
        page = await _page(request, prefix, after, limit + 1)
        default = request.context.settings.region
        found += [b for b in page.buckets if not region or region_of(b, default) == region]
        if len(found) > limit:
            return found[:limit], True
        if not page.resume:
            return found, False
        after = page.resume


async def _page(request: S3Request, prefix: str, after: str, limit: int) -> wire.BucketPage:
    return await request.session.ask_service(
        lambda epochs: wire.ListBuckets(
            owner_id=request.user_id, epochs=epochs, prefix=prefix, after=after, limit=limit
        ),
        wire.BucketPage,
    )


def _entry(request: S3Request, bucket: Bucket) -> BucketEntry:
    """S3 tells the region once the request has any parameter."""
    region = region_of(bucket, request.context.settings.region) if request.query else None
    return BucketEntry(name=bucket.name, created_ms=bucket.created_ms, region=region)
