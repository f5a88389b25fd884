"""Version ids that a client names: those that could be ours, or a refusal. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from astra.model import NULL_VERSION, decode_version_order
from gateway.s3api.errors import S3Error
from gateway.s3api.names import parse_version_id


def is_version_id(text: str) -> bool:
    """Whether some version may have this id."""
    return text == NULL_VERSION or decode_version_order(text) is not None


def check_version_id(text: str, name: str = "versionId") -> str:
    """The id itself; InvalidArgument for one that no version can have."""
    if not is_version_id(text):
        raise S3Error(
            "InvalidArgument",
            "Invalid version id specified",
            ArgumentName=name,
            ArgumentValue=text[:128],
        )
    return text


def requested_version_id(query: Mapping[str, str]) -> str | None:
    """The versionId of the query, if there is one. Raises InvalidArgument."""
    version_id = parse_version_id(query)
    return None if version_id is None else check_version_id(version_id)
