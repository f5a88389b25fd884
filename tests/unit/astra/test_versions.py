"""What nodes and gateways of neighbouring versions make of each other (FAULTS rows 52, 57).

Messages: fields that are not known are passed over, fields that are missing have their defaults.
The log: an entry that this version would only half understand stops the node.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from awscrt.checksums import crc32c

from astra.commands import (
    PROPOSAL_FORMAT,
    CreateBucket,
    NewBlob,
    ObjectHead,
    Proposal,
    PutObject,
    decode_proposal,
    encode_proposal,
)
from astra.errors import HandshakeFailed, UnknownFormat
from astra.frame import WIRE_VERSION, Prelude, decode_header
from astra.handshake import NONCE_BYTES, check_hello
from astra.wire import Epochs, Hello, Locate, Membership, Message

PUT: Final = Proposal(
    request_id="r",
    time_ms=1,
    salt=b"12345678",
    command=PutObject(
        bucket="b", key=b"k", head=ObjectHead(owner_id="o"), etag="e", size=3,
        blob=NewBlob(blob_id="0" * 32, size=3, data=b"abc"),
    ),
)  # fmt: skip


def fields_of(proposal: Proposal) -> list[Any]:
    decoded: list[Any] = msgspec.msgpack.decode(encode_proposal(proposal)[1:])
    return decoded


def entry_of(fields: list[Any]) -> bytes:
    return PROPOSAL_FORMAT + msgspec.msgpack.encode(fields)


def in_the_proposal(fields: list[Any]) -> None:
    fields.append(None)


def in_the_command(fields: list[Any]) -> None:
    fields[3].append(0)


def in_a_part_of_the_command(fields: list[Any]) -> None:
    next(each for each in fields[3] if isinstance(each, list)).append("new")


@pytest.mark.parametrize("grow", [in_the_proposal, in_the_command, in_a_part_of_the_command])
def test_entry_with_a_field_of_a_newer_version_is_refused(grow: Any) -> None:
    fields = fields_of(PUT)
    assert decode_proposal(entry_of(fields)) == PUT
    grow(fields)
    with pytest.raises(UnknownFormat, match="does not know"):
        decode_proposal(entry_of(fields))


def test_entry_of_an_older_version_has_defaults() -> None:
    proposal = msgspec.structs.replace(PUT, command=CreateBucket(bucket="b", owner_id="o"))
    fields = fields_of(proposal)
    del fields[4:], fields[3][3:]
    assert decode_proposal(entry_of(fields)) == proposal


def test_membership_with_a_field_of_a_newer_version_is_refused() -> None:
    data = msgspec.msgpack.encode([["n1"], [], [], ["new"]])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(data, type=Membership)


def decode(fields: dict[str, Any]) -> Message:
    header = msgspec.msgpack.encode(fields)
    return decode_header(Prelude(1, len(header), 0, 0, crc32c(header)), header)


def test_message_with_and_without_fields_is_read() -> None:
    message = Locate(bucket="b", key=b"k", epochs=Epochs())
    fields: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    assert decode({**fields, "of_a_newer_version": [1, 2]}) == message
    del fields["with_data"]
    assert decode(fields) == message


def test_peer_of_another_wire_version_is_refused_by_its_number() -> None:
    hello = Hello(
        wire_version=WIRE_VERSION + 1, role="node", peer_id="n1", nonce=b"n" * NONCE_BYTES
    )
    with pytest.raises(HandshakeFailed, match=f"wire version {WIRE_VERSION + 1}"):
        check_hello(hello)
