"""Tags: limits and the x-amz-tagging header."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api.errors import S3Error
from gateway.s3api.tags import check_bucket_tags, check_object_tags, parse_tagging_header

ALLOWED = st.text(st.characters(categories=("L", "N"), include_characters=" _.:/=+-@"))


def _numbered(count: int) -> list[tuple[str, str]]:
    return [(f"key{number}", "v") for number in range(count)]


def test_check_tags_at_the_limits_are_allowed() -> None:
    assert len(check_object_tags(_numbered(10))) == 10
    assert len(check_bucket_tags(_numbered(50))) == 50
    assert check_object_tags([("k" * 128, "v" * 256), ("é", "")])


@pytest.mark.parametrize(
    "tags",
    [
        _numbered(11),
        [("", "v")],
        [("k" * 129, "v")],
        [("k", "v" * 257)],
        [("k", "1"), ("k", "2")],
        [("aws:k", "v")],
        [("AWS:k", "v")],
        [("k<", "v")],
        [("k", "v\0")],
        [("k", "v&")],
    ],
)
def test_check_object_tags_outside_the_rules_is_invalid_tag(tags: list[tuple[str, str]]) -> None:
    with pytest.raises(S3Error, match="InvalidTag"):
        check_object_tags(tags)


def test_check_bucket_tags_too_many_is_invalid_tag() -> None:
    with pytest.raises(S3Error, match="InvalidTag"):
        check_bucket_tags(_numbered(51))


@given(
    tags=st.lists(
        st.tuples(ALLOWED.filter(lambda key: 1 <= len(key) <= 128), ALLOWED),
        unique_by=lambda pair: pair[0],
        max_size=10,
    )
)
def test_parse_tagging_header_encoded_by_an_sdk_comes_back(tags: list[tuple[str, str]]) -> None:
    if any(key.lower().startswith("aws:") for key, _ in tags):
        return
    assert parse_tagging_header(urlencode(tags)) == tuple(sorted(tags))


def test_parse_tagging_header_forms() -> None:
    assert parse_tagging_header("") == ()
    assert parse_tagging_header("a=1&b=&c") == (("a", "1"), ("b", ""), ("c", ""))
    assert parse_tagging_header("b=1&a") == (("a", ""), ("b", "1"))
    assert parse_tagging_header("a+b=c%20d%3D") == (("a b", "c d="),)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("a=1&a=2", "InvalidArgument"),
        ("a=%ff", "InvalidArgument"),
        ("a=" + "1" * 20_000, "InvalidArgument"),
        ("&".join(f"k{number}=v" for number in range(1000)), "InvalidArgument"),
        ("&".join(f"k{number}=v" for number in range(11)), "InvalidTag"),
        ("=v", "InvalidTag"),
    ],
)
def test_parse_tagging_header_malformed_is_refused(value: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_tagging_header(value)
    assert caught.value.code == code
