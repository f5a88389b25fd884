"""Which function serves which operation. A test holds it against the operation table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.s3api.acl import get_bucket_acl, get_object_acl, put_bucket_acl, put_object_acl
from gateway.s3api.bucket import create_bucket, delete_bucket, get_bucket_location, head_bucket
from gateway.s3api.bucket_config import (
    delete_bucket_tagging,
    get_bucket_tagging,
    get_bucket_versioning,
    put_bucket_tagging,
    put_bucket_versioning,
)
from gateway.s3api.listing import list_object_versions, list_objects, list_objects_v2
from gateway.s3api.multipart import abort_multipart_upload, create_multipart_upload, upload_part
from gateway.s3api.multipart_complete import complete_multipart_upload
from gateway.s3api.multipart_copy import upload_part_copy
from gateway.s3api.multipart_list import list_multipart_uploads, list_parts
from gateway.s3api.object_attributes import get_object_attributes
from gateway.s3api.object_copy import copy_object
from gateway.s3api.object_delete import delete_object, delete_objects
from gateway.s3api.object_read import get_object, head_object
from gateway.s3api.object_tagging import (
    delete_object_tagging,
    get_object_tagging,
    put_object_tagging,
)
from gateway.s3api.object_write import put_object
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response
from gateway.s3api.service import list_buckets

Handler = Callable[[S3Request], Awaitable[S3Response]]

HANDLERS: Final[Mapping[str, Handler]] = {
    "AbortMultipartUpload": abort_multipart_upload,
    "CompleteMultipartUpload": complete_multipart_upload,
    "CopyObject": copy_object,
    "CreateBucket": create_bucket,
    "CreateMultipartUpload": create_multipart_upload,
    "DeleteBucket": delete_bucket,
    "DeleteBucketTagging": delete_bucket_tagging,
    "DeleteObject": delete_object,
    "DeleteObjectTagging": delete_object_tagging,
    "DeleteObjects": delete_objects,
    "GetBucketAcl": get_bucket_acl,
    "GetBucketLocation": get_bucket_location,
    "GetBucketTagging": get_bucket_tagging,
    "GetBucketVersioning": get_bucket_versioning,
    "GetObject": get_object,
    "GetObjectAcl": get_object_acl,
    "GetObjectAttributes": get_object_attributes,
    "GetObjectTagging": get_object_tagging,
    "HeadBucket": head_bucket,
    "HeadObject": head_object,
    "ListBuckets": list_buckets,
    "ListMultipartUploads": list_multipart_uploads,
    "ListObjectVersions": list_object_versions,
    "ListObjects": list_objects,
    "ListObjectsV2": list_objects_v2,
    "ListParts": list_parts,
    "PutBucketAcl": put_bucket_acl,
    "PutBucketTagging": put_bucket_tagging,
    "PutBucketVersioning": put_bucket_versioning,
    "PutObject": put_object,
    "PutObjectAcl": put_object_acl,
    "PutObjectTagging": put_object_tagging,
    "UploadPart": upload_part,
    "UploadPartCopy": upload_part_copy,
}
