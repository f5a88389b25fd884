"""CopyObject: what the headers ask for."""

import pytest

from gateway.s3api.copy_source import check_copy_size
from gateway.s3api.errors import S3Error
from gateway.s3api.object_copy import Directive, parse_directive

GIB = 1 << 30


@pytest.mark.parametrize("what", ["metadata", "tagging"])
def test_parse_directive_is_copy_unless_it_says_replace(what: str) -> None:
    name = f"x-amz-{what}-directive"
    assert parse_directive({}, what) is Directive.COPY
    assert parse_directive({name: "COPY"}, what) is Directive.COPY
    assert parse_directive({name: "REPLACE"}, what) is Directive.REPLACE


@pytest.mark.parametrize("value", ["", "replace", "MOVE"])
def test_parse_directive_that_is_unknown_is_invalid_argument(value: str) -> None:
    with pytest.raises(S3Error, match="Unknown metadata directive") as caught:
        parse_directive({"x-amz-metadata-directive": value}, "metadata")
    assert caught.value.code == "InvalidArgument"


def test_check_copy_size_takes_five_gib_and_no_byte_more() -> None:
    check_copy_size(5 * GIB)
    with pytest.raises(S3Error, match="larger than the maximum allowable size") as caught:
        check_copy_size(5 * GIB + 1)
    assert caught.value.code == "InvalidRequest"
