"""Which capability of S3 a test of the public suite is about, by its name and markers.

The suite's markers cover half of its tests, so names decide the rest. Rules are tried in order,
the first that fits wins. Pure; the numbers of docs/s3-tests.md are made with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

OTHER: Final = "other"

# (capability, pattern of the test's name, marker); None fits every test.
_RULES: Final[tuple[tuple[str, str | None, str | None], ...]] = (
    ("bucket logging", None, "bucket_logging"),
    ("IAM", None, "iam_account"),
    ("IAM", None, "iam_tenant"),
    ("headers SigV2", None, "auth_aws2"),
    ("headers SigV4", None, "auth_common"),
    ("POST object", r"post_object", None),
    ("copy between SSE modes", r"copy_enc|copy_part_enc", None),
    ("SSE-KMS", r"sse_kms", None),
    ("SSE-C", r"encryption_sse_c|encrypted_transfer|encryption_key|sse_c", None),
    ("SSE-S3, bucket default", None, "sse_s3"),
    ("SSE-S3, bucket default", None, "bucket_encryption"),
    ("SSE header conflicts", None, "encryption"),
    ("lifecycle", None, "lifecycle"),
    ("lifecycle", r"lifecycle", None),
    ("object lock", r"object_lock", None),
    ("ownership controls", r"ownership", None),
    ("ownership controls", None, "object_ownership"),
    ("public access block", r"public_block|block_public|ignore_public|restrict_public", None),
    ("bucket policy", None, "bucket_policy"),
    ("bucket policy", r"policy|get_public", None),
    ("CORS", r"cors", None),
    ("checksums", None, "checksum"),
    ("checksums", r"checksum", None),
    ("GetObjectAttributes", r"object_attributes|get_obj_attrs|get_.*_attributes", None),
    ("tagging", r"tag", None),
    ("versioning", r"version", None),
    ("conditional", r"ifn?o?n?e?match|if_(none_)?match|if(un)?modified", None),
    ("conditional", None, "conditional_write"),
    ("ACL", r"acl|grant|access_bucket|bucket_permission|object_permission", None),
    ("multipart", r"multipart|upload_part", None),
    ("copy", r"copy", None),
    ("listing v2", r"listv2|list_objects_v2", None),
    ("listing v2", None, "list_objects_v2"),
    ("listing v1", r"bucket_list_|list_objects|bucket_listing", None),
    ("ranges", r"range", None),
    ("presigned, anonymous, raw", r"raw|anon|presign|expires", None),
    ("buckets", r"bucket", None),
    ("objects", r"object|obj|atomic|100_continue|key|multi_delete", None),
)  # fmt: skip


def capability_of(name: str, markers: Collection[str]) -> str:
    """The capability, or "other" when no rule fits."""
    for capability, pattern, marker in _RULES:
        if marker is not None and marker not in markers:
            continue
        if pattern is None or re.search(pattern, name):
            return capability
    return OTHER
