"""Limits and sizes, each with where it comes from; their relations are checked at import."""

from __future__ import annotations

from typing import Final

from astra.errors import invariant

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

CHUNK_SIZE: Final = MIB  # DESIGN section 5
REPLICAS: Final = 3
WRITE_QUORUM: Final = 2
VOTERS_MAX: Final = 5

# S3 limits (AWS: "Amazon S3 multipart upload limits", "Creating object key names").
KEY_BYTES_MAX: Final = 1024
PUT_SIZE_MAX: Final = 5 * GIB
OBJECT_SIZE_MAX: Final = 5 * TIB
PART_SIZE_MIN: Final = 5 * MIB  # every part but the last
PART_NUMBER_MAX: Final = 10_000
LIST_KEYS_MAX: Final = 1000
USERS_ASKED_MAX: Final = 1000  # looked up in one message
DELETE_KEYS_MAX: Final = 1000
BUCKETS_PER_OWNER_MAX: Final = 1000
USER_METADATA_BYTES_MAX: Final = 2 * KIB
OBJECT_TAGS_MAX: Final = 10
BUCKET_TAGS_MAX: Final = 50
ACL_GRANTS_MAX: Final = 100

# Request bodies that are read whole.
XML_BODY_BYTES_MAX: Final = 2 * MIB
HEADER_BYTES_MAX: Final = 16 * KIB

# A blob may be committed for this long after it was placed; the sweep waits longer.
BLOB_COMMIT_AGE_MS_MAX: Final = 24 * 3600 * 1000
BLOB_ORPHAN_AGE_MS_MIN: Final = 26 * 3600 * 1000
# A download that takes longer than the garbage grace: its gateway tells the holders every
# READ_TOLD_S that it still reads, and each time they keep the blobs for READ_KEPT_S. A reader who
# takes more than a day is not waited for.
READ_TOLD_S: Final = 10
READ_KEPT_S: Final = 60
READ_SECONDS_MAX: Final = 24 * 3600
READ_BLOBS_MAX: Final = 1000  # named in one message

# Parts that are copied from objects of many parts have many extents. One each, and this many more
# in one upload: the largest object copied in the largest parts, with room for odd borders.
SURPLUS_EXTENTS_MAX: Final = 20_000

# Results kept for retried requests (a window of log indexes).
REQUEST_WINDOW: Final = 50_000

# Small objects travel inside the metadata command. Chosen in ADR 0003.
INLINE_BYTES_DEFAULT: Final = 64 * KIB
INLINE_BYTES_MAX: Final = 256 * KIB

# Wire frames.
FRAME_HEADER_BYTES_MAX: Final = 16 * MIB  # where all extents of the largest object are, and who
# holds them; far less otherwise
FRAME_PAYLOAD_BYTES_MAX: Final = CHUNK_SIZE
PROPOSAL_BYTES_MAX: Final = 2 * MIB

invariant(BLOB_ORPHAN_AGE_MS_MIN > BLOB_COMMIT_AGE_MS_MAX, "orphans outlive commits")
invariant(3 * READ_TOLD_S <= READ_KEPT_S, "a reader is not forgotten over a lost message or two")
invariant(INLINE_BYTES_DEFAULT <= INLINE_BYTES_MAX < PROPOSAL_BYTES_MAX, "inline fits a proposal")
invariant(PROPOSAL_BYTES_MAX < FRAME_HEADER_BYTES_MAX, "a proposal fits a frame")
invariant(PART_NUMBER_MAX * PART_SIZE_MIN <= OBJECT_SIZE_MAX, "parts fit an object")
invariant(WRITE_QUORUM * 2 > REPLICAS, "two write quorums of holders overlap")
