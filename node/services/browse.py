"""The other questions to the leader: buckets, access, uploads and parts. All linearizable, none
cached here: gateways cache buckets and access themselves, guarded by the epochs.
"""

from __future__ import annotations

from astra.model import ACCESS_EPOCH, ACCESS_KEYS, BUCKETS, MARKS, USERS
from astra.ports import MetadataView
from astra.wire import (
    AccessFound,
    AccessPage,
    BucketFound,
    BucketPage,
    FindUsers,
    GetAccess,
    GetBucket,
    ListAccess,
    ListBuckets,
    ListParts,
    ListUploads,
    PartPage,
    UploadPage,
    UsersFound,
)
from node import listing, users
from node.services.reads import Reads


class BrowseService:
    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get_bucket(self, request: GetBucket) -> BucketFound:
        async def read(view: MetadataView) -> BucketFound:
            bucket = await view.get(BUCKETS, (request.bucket.encode(),))
            owner = None if bucket is None else await view.get(USERS, (bucket.owner_id,))
            return BucketFound(bucket=bucket, owner=owner)

        return await self._reads.read(read)

    async def get_access(self, request: GetAccess) -> AccessFound:
        async def read(view: MetadataView) -> AccessFound:
            mark = await view.get(MARKS, (ACCESS_EPOCH,))
            key = await view.get(ACCESS_KEYS, (request.access_key,))
            user = None if key is None else await view.get(USERS, (key.user_id,))
            return AccessFound(epoch=0 if mark is None else mark.value, key=key, user=user)

        return await self._reads.read(read)

    async def list_access(self, request: ListAccess) -> AccessPage:
        return await self._reads.read(lambda view: users.list_access(view, request), scans=True)

    async def find_users(self, request: FindUsers) -> UsersFound:
        return await self._reads.read(lambda view: users.find_users(view, request), scans=True)

    async def list_buckets(self, request: ListBuckets) -> BucketPage:
        return await self._reads.read(lambda view: listing.list_buckets(view, request), scans=True)

    async def list_uploads(self, request: ListUploads) -> UploadPage:
        return await self._reads.read(lambda view: listing.list_uploads(view, request), scans=True)

    async def list_parts(self, request: ListParts) -> PartPage:
        return await self._reads.read(lambda view: listing.list_parts(view, request), scans=True)
