"""What is fuzzed: each decoder of bytes that come from a peer, the bus, the cache or a disk.

A target makes an input from chance and feeds it. It raises when the decoder did anything but
answer or raise an error that it declares. Half of the inputs carry right checksums: otherwise no
change would ever get past them.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import struct
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from typing import Final

import msgspec
from awscrt.checksums import crc32c
from msgspec import inspect

from astra.bus_rabbitmq import unseal
from astra.commands import PROPOSAL_FORMAT, Proposal, Result, decode_proposal, decode_result
from astra.errors import AstraError, DamagedLog, UnknownFormat, WireError
from astra.model import TABLES
from astra.wire import Membership, Notice
from gateway.s3api.errors import S3Error
from gateway.s3api.listing_tokens import decode_buckets_token, decode_objects_token
from node.chunkstore.format import Footer, FooterDamaged, decode_footer, encode_footer
from node.metadata.export import ExportDecoder, FrameKind
from node.metadata.raftrows import decode_entry, decode_meta
from node.metadata.rows import DamagedRow, decode_doc
from node.raft.log import decode_membership
from tests.fuzz.mutate import Maker, Mutator

SECRET: Final = b"0123456789abcdef0123456789abcdef"


class Target(ABC):
    """One decoder. `name` is for people and the command line."""

    name: str
    cost: int = 1  # about how many inputs of other targets take as long as one of this

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.maker = Maker(chance)
        self.mutator = Mutator(chance)

    @abstractmethod
    def make(self) -> bytes:
        """An input."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Gives it to the decoder; whatever leaves here was not declared."""

    def close(self) -> None:  # noqa: B027  # most have nothing to give back
        """Gives back what it holds outside memory."""


class Proposals(Target):
    """Entries of the Raft log, as apply reads them."""

    name = "proposal"
    _type = inspect.type_info(Proposal)

    def make(self) -> bytes:
        return self.mutator.mutate(PROPOSAL_FORMAT + self.maker.encoded(self._type))

    def feed(self, data: bytes) -> None:
        try:
            decode_proposal(data)
        except UnknownFormat:
            pass


class Results(Target):
    """Remembered answers of commands, as a repeated request reads them."""

    name = "result"
    _type = inspect.type_info(Result)

    def make(self) -> bytes:
        return self.mutator.mutate(self.maker.encoded(self._type))

    def feed(self, data: bytes) -> None:
        try:
            decode_result(data)
        except AstraError:
            pass


class Documents(Target):
    """Rows of the metadata tables."""

    name = "document"
    _types = {table.name: inspect.type_info(table.doc) for table in TABLES}

    def make(self) -> bytes:
        number = self.chance.randrange(len(TABLES))
        valid = self.maker.encoded(self._types[TABLES[number].name])
        return bytes([number]) + self.mutator.mutate(valid)

    def feed(self, data: bytes) -> None:
        try:
            decode_doc(TABLES[data[0]], data[1:])
        except DamagedRow:
            pass


class Snapshots(Target):
    """The export of all tables, frames with right checksums, in pieces of any length."""

    name = "snapshot"
    _types = {table.name: inspect.type_info(table.doc) for table in TABLES}

    def make(self) -> bytes:
        start = b"ASTRMETA\x00\x01" + self._frame(FrameKind.HEAD, msgspec.msgpack.encode((7,)))
        frames = [self._rows() for _ in range(self.chance.randrange(3))]
        whole = b"".join([start, *frames, self._frame(FrameKind.END, b"\x92\x01\x02")])
        return whole if self.chance.random() < 0.5 else self.mutator.mutate(whole)

    def _rows(self) -> bytes:
        table = self.chance.choice(TABLES)
        columns = self.chance.choice(([b"k"], ["k"], ["b", b"k"], ["b", b"k", 3], [1], [None]))
        rows = [[columns, self.maker.encoded(self._types[table.name])] for _ in range(2)]
        return self._frame(FrameKind.ROWS, msgspec.msgpack.encode((table.name, rows)))

    def _frame(self, kind: int, payload: bytes) -> bytes:
        payload = self.mutator.mutate(payload)
        kind = kind if self.chance.random() < 0.95 else self.chance.randrange(256)
        prefix = struct.pack("!BI", kind, len(payload))
        crc: int = crc32c(payload, crc32c(prefix))
        return prefix + struct.pack("!I", crc) + payload

    def feed(self, data: bytes) -> None:
        decoder, place = ExportDecoder(), 0
        try:
            while place < len(data):
                end = place + self.chance.choice((1, 7, 100, len(data)))
                for _ in decoder.feed(data[place:end]):
                    pass
                place = end
            decoder.finish()
        except (WireError, UnknownFormat):
            pass


class Footers(Target):
    """The end of a blob file, with right checksums."""

    name = "footer"

    def make(self) -> bytes:
        size = self.chance.choice((1, 1 << 20, (1 << 20) + 1, 5 << 20))
        count = -(-size // (1 << 20))
        crcs = tuple(self.chance.randrange(1 << 32) for _ in range(count))
        footer = encode_footer(Footer(blob_id="ab" * 16, size=size, chunk_crcs=crcs))
        data = self.mutator.mutate(footer)
        if len(data) < 24 or self.chance.random() < 0.3:
            return data
        block, tail = data[:-24], data[-20:]
        block_crc: int = crc32c(block)
        tail_crc: int = crc32c(tail[:-4])
        repaired = block + block_crc.to_bytes(4, "little") + tail[:-4]
        return repaired + tail_crc.to_bytes(4, "little")

    def feed(self, data: bytes) -> None:
        size = self.chance.choice((0, 1, 1 << 20, (1 << 20) + 1, 5 << 20)) + len(data)
        try:
            decode_footer(data, blob_id="ab" * 16, file_size=size)
        except (FooterDamaged, UnknownFormat):
            pass


class RaftRows(Target):
    """Log entries and hard state, as a database that rots may give them."""

    name = "raftrows"
    _members = inspect.type_info(Membership)

    def make(self) -> bytes:
        return self.mutator.mutate(self.maker.encoded(self._members))

    def feed(self, data: bytes) -> None:
        index, term, kind, number = (self._integer() for _ in range(4))
        note = self.chance.choice((None, data))
        voted = self.chance.choice((None, "n1", ""))
        try:
            decode_entry((index, term, kind, data, number))
        except DamagedLog:
            pass
        try:
            meta = (term, voted, index, number, kind, data, number, note, crc32c(data))
            decode_meta(meta)
        except DamagedLog:
            pass
        try:
            decode_membership(data)
        except DamagedLog:
            pass

    def _integer(self) -> int:
        return self.chance.choice((0, 1, 2, 3, -1, 2**31, 2**63 - 1, -(2**63), 77))


class Notices(Target):
    """Messages of the bus, sealed with the right secret or not."""

    name = "notice"
    _type = inspect.type_info(Notice)

    def make(self) -> bytes:
        data = self.mutator.mutate(self.maker.encoded(self._type))
        seal = hmac.new(SECRET, b"astra-notice-1" + data, hashlib.sha256).digest()
        return seal + data if self.chance.random() < 0.8 else self.mutator.mutate(seal + data)

    def feed(self, data: bytes) -> None:
        unseal(SECRET, data)


class Tokens(Target):
    """Continuation tokens, as any client may send them."""

    name = "token"

    def make(self) -> bytes:
        packed = msgspec.msgpack.encode(self.chance.choice(([b"key", False], ["bucket"])))
        data = b"\x01" + self.mutator.mutate(packed)
        if self.chance.random() < 0.2:
            return self.mutator.mutate(data)
        return urlsafe_b64encode(data).rstrip(b"=")

    def feed(self, data: bytes) -> None:
        text = data.decode("latin-1")
        for decode in (decode_objects_token, decode_buckets_token):
            try:
                decode(text)
            except S3Error:
                pass
