"""Continuation tokens: what we made comes back, everything else is refused."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api import listing_tokens as tokens
from gateway.s3api.errors import S3Error

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200).map(str.encode)


@given(after=KEYS, skip_prefix=st.booleans())
def test_objects_token_comes_back(after: bytes, skip_prefix: bool) -> None:
    text = tokens.encode_objects_token(after, skip_prefix=skip_prefix)
    assert tokens.decode_objects_token(text) == tokens.ObjectsToken(after, skip_prefix)
    assert text.isascii()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_objects_token_of_the_longest_key_comes_back() -> None:
    text = tokens.encode_objects_token(b"k" * 1024, skip_prefix=False)
    assert tokens.decode_objects_token(text).after == b"k" * 1024


def test_buckets_token_comes_back() -> None:
    assert tokens.decode_buckets_token(tokens.encode_buckets_token("abc")).after == "abc"


def _forged(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


GOOD = tokens.encode_objects_token(b"key", skip_prefix=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key",
        "é",
        GOOD + "=",
        GOOD + "A",
        GOOD[:-1],
        " " + GOOD,
        GOOD + "\n",
        GOOD[:4] + "\n" + GOOD[4:],
        "A" * 100_000,
        tokens.encode_buckets_token("abc"),
        _forged(b"\x02" + b"\x92\xc4\x03key\xc2"),  # another version
        _forged(b"\x01" + b"\x92\xc4\x00\xc2"),  # an empty key
        _forged(b"\x01" + b"\x92\xc4\x01\xff\xc2"),  # not UTF-8
        _forged(b"\x01" + b"\x93\xc4\x03key\xc2\xc0"),  # a field too many
        _forged(b"\x01" + b"\x91\xc4\x03key"),  # a field too few
        _forged(b"\x01" + b"\x92\xc4\x03key\x00"),  # a number for a flag
        _forged(b"\x01" + b"\x92\xa3key\xc2"),  # text for bytes
        _forged(b"\x01" + b"\x92\xc5\x00\x03key\xc2"),  # the same in another spelling
        _forged(b"\x01" + b"\x92\xc5\x04\x01" + b"k" * 1025 + b"\xc2"),  # too long
        _forged(b"\x01" + b"\x91" * 500),  # deep
        _forged(b"\x01" + b"\xdd\xff\xff\xff\xff"),  # a huge array
    ],
)
def test_decode_objects_token_forged_is_invalid_argument(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        tokens.decode_objects_token(text)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.message == "The continuation token provided is incorrect"


def test_objects_token_spelling_of_the_good_one_is_accepted() -> None:
    # The control of the test above: the same packing by hand is the same token.
    assert _forged(b"\x01" + b"\x92\xc4\x03key\xc2") == GOOD


@given(text=st.text(max_size=60) | st.binary(max_size=60).map(_forged))
def test_decode_arbitrary_text_is_refused_or_canonical(text: str) -> None:
    try:
        token = tokens.decode_objects_token(text)
    except S3Error as error:
        assert error.code == "InvalidArgument"
    else:
        assert tokens.encode_objects_token(token.after, skip_prefix=token.skip_prefix) == text
    try:
        bucket = tokens.decode_buckets_token(text)
    except S3Error as error:
        assert error.code == "InvalidArgument"
    else:
        assert tokens.encode_buckets_token(bucket.after) == text


def test_decode_buckets_token_too_long_is_invalid_argument() -> None:
    with pytest.raises(S3Error, match="InvalidArgument"):
        tokens.decode_buckets_token(tokens.encode_buckets_token("b" * 64))
