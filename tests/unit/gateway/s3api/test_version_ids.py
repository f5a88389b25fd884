"""Version ids: ours and null pass, everything else is refused by name."""

import pytest

from astra.model import encode_version_id
from gateway.s3api.errors import S3Error
from gateway.s3api.version_ids import check_version_id, is_version_id, requested_version_id

OURS = encode_version_id(77, b"saltsalt")


@pytest.mark.parametrize("version_id", ["null", OURS, encode_version_id(1, b"")])
def test_is_version_id_of_possible_ones_is_true(version_id: str) -> None:
    assert is_version_id(version_id)
    assert check_version_id(version_id) == version_id
    assert requested_version_id({"versionId": version_id}) == version_id


@pytest.mark.parametrize("version_id", ["", "NULL", "no-id", OURS.upper(), OURS + "0", "0" * 32])
def test_requested_version_id_impossible_is_invalid_argument(version_id: str) -> None:
    assert not is_version_id(version_id)
    with pytest.raises(S3Error) as refused:
        requested_version_id({"versionId": version_id})
    assert refused.value.code == "InvalidArgument"
    assert refused.value.extra["ArgumentName"] == "versionId"


def test_requested_version_id_absent_is_none() -> None:
    assert requested_version_id({}) is None
