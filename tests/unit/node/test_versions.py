"""Every stored and every sent format: what a newer version wrote is refused by name, never misread.

One row per format. Small ones whose loss costs only work are ignored instead.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from astra.bus_rabbitmq import seal, unseal
from astra.commands import PROPOSAL_FORMAT, decode_proposal, decode_result
from astra.errors import HandshakeFailed, OldFormat, UnknownFormat, WireError
from astra.frame import WIRE_VERSION, decode_header, decode_prelude, encode_frame
from astra.handshake import NONCE_BYTES, check_hello
from astra.model import BUCKETS
from astra.wire import GetStatus, Hello, Notice
from gateway.s3api.errors import S3Error
from gateway.s3api.listing_tokens import decode_objects_token, encode_objects_token
from node.chunkstore.format import FORMAT_VERSION, TAIL_BYTES, Footer, crc32c, encode_footer
from node.chunkstore.format import decode_footer as decode_blob_footer
from node.chunkstore.layout import LAYOUT_VERSION, MARKER
from node.chunkstore.store import DiskChunkStore
from node.datadir import MARKER as DATA_MARKER
from node.datadir import DataDirectory
from node.lastwords import last_words
from node.metadata.export import VERSION as EXPORT_VERSION
from node.metadata.export import ExportDecoder, ExportEncoder
from node.metadata.raftrows import decode_entry
from node.metadata.sqlite import SqliteMetadataStore
from node.metadata.tables import SCHEMA_VERSION
from node.raft.storage import fields_checksum
from node.services.scrub import NOTE_FORMAT, Progress, decode_progress
from tests.support.nodes import LocalNodes

BLOB = "0" * 31 + "1"
SECRET = b"a secret of the tests, 32 bytes long"

Case = Callable[[Path], Awaitable[object] | object]


def data_directory(path: Path) -> object:
    marker = {"format": 2, "cluster_id": "c", "node_id": "n1", "new": True}
    (path / DATA_MARKER).write_bytes(msgspec.json.encode(marker))
    return DataDirectory(path, cluster_id="c", node_id="n1")


def chunk_directory(path: Path, layout: int = LAYOUT_VERSION + 1) -> object:
    marker = {"layout": layout, "new": True}
    (path / MARKER).write_bytes(msgspec.json.encode(marker))
    return DiskChunkStore(str(path), cluster_id="c", node_id="n1")


def blob_file(_: Path) -> object:
    footer = encode_footer(Footer(blob_id=BLOB, size=1, chunk_crcs=(crc32c(b"x"),)))
    tail = bytearray(footer[-TAIL_BYTES:-4])
    tail[4:6] = (FORMAT_VERSION + 1).to_bytes(2, "little")
    newer = footer[:-TAIL_BYTES] + tail + crc32c(bytes(tail)).to_bytes(4, "little")
    return decode_blob_footer(newer, blob_id=BLOB, file_size=1 + len(newer))


async def sqlite_file(path: Path) -> object:
    return await SqliteMetadataStore.open(await sqlite_file_of(path, SCHEMA_VERSION + 1))


async def sqlite_file_of(path: Path, version: int) -> Path:
    file = path / "node.db"
    await (await SqliteMetadataStore.open(file)).close()
    connection = sqlite3.connect(file)
    connection.execute(f"UPDATE astra_store SET schema_version = {version}")
    connection.commit()
    connection.close()
    return file


def log_entry_of_a_new_kind(_: Path) -> object:
    return decode_entry((1, 1, 9, b"data", fields_checksum(1, 1, 9, b"data")))


def proposal(_: Path) -> object:
    return decode_proposal(bytes((PROPOSAL_FORMAT[0] + 1,)) + b"anything")


def proposal_with_a_new_command(_: Path) -> object:
    fields = ("id", 1, b"salt", ("paint-bucket", "b"))
    return decode_proposal(PROPOSAL_FORMAT + msgspec.msgpack.encode(fields))


def remembered_result(_: Path) -> object:
    return decode_result(msgspec.msgpack.encode(("painted", 1)))


def snapshot(_: Path) -> object:
    head = bytearray(ExportEncoder().head(1))
    head[8:10] = (EXPORT_VERSION + 1).to_bytes(2, "big")
    return list(ExportDecoder().feed(bytes(head)))


def snapshot_with_a_new_table(_: Path) -> object:
    encoder = ExportEncoder()
    rows = encoder.rows(BUCKETS, []).replace(b"buckets", b"baskets")
    # The checksum of the frame, as the newer version would have made it.
    prefix, payload = rows[:5], rows[9:]
    crc = crc32c(prefix + payload).to_bytes(4, "big")
    return list(ExportDecoder().feed(encoder.head(1) + prefix + crc + payload))


def frame(_: Path) -> object:
    data = bytearray(encode_frame(1, GetStatus()))
    data[2] = WIRE_VERSION + 1
    return decode_prelude(data, trusted=True)


def message(_: Path) -> object:
    header = msgspec.msgpack.encode({"type": "paint-bucket", "bucket": "b"})
    prelude = decode_prelude(encode_frame(1, GetStatus()), trusted=True)
    prelude = prelude._replace(header_length=len(header), header_crc=crc32c(header))
    return decode_header(prelude, header)


def hello(_: Path) -> object:
    nonce = bytes(NONCE_BYTES)
    check_hello(Hello(wire_version=WIRE_VERSION + 1, role="node", peer_id="n1", nonce=nonce))
    return None


def continuation_token(_: Path) -> object:
    token = encode_objects_token(b"k", skip_prefix=False)
    return decode_objects_token("Ag" + token[2:])  # its first byte: version 2


CASES: list[tuple[Case, type[Exception], str]] = [
    (data_directory, UnknownFormat, "has format 2; this version knows 1"),
    (chunk_directory, UnknownFormat, "chunk directory layout 3; known is 2"),
    (blob_file, UnknownFormat, "blob format 2; this program knows 1"),
    (sqlite_file, UnknownFormat, "schema version 3; this version knows 2"),
    (log_entry_of_a_new_kind, UnknownFormat, "of kind 9, not known here"),
    (proposal, UnknownFormat, "is not known to this version"),
    (proposal_with_a_new_command, UnknownFormat, "cannot be read by this version"),
    (remembered_result, UnknownFormat, "cannot be read by this version"),
    (snapshot, UnknownFormat, "snapshot format 2 is not known"),
    (snapshot_with_a_new_table, UnknownFormat, "has a table 'baskets' that this version lacks"),
    (frame, WireError, "wire version 3 is not known"),
    (message, WireError, "cannot be read"),
    (hello, HandshakeFailed, "peer speaks wire version 3"),
    (continuation_token, S3Error, "token provided is incorrect"),
]


@pytest.mark.parametrize(
    ("case", "error", "text"), [pytest.param(*each, id=each[0].__name__) for each in CASES]
)
async def test_newer_format_is_refused_by_name(
    case: Case, error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        found = case(tmp_path)
        if inspect.isawaitable(found):
            await found


async def test_older_format_is_refused_untouched_and_the_last_words_say_what_to_do(
    tmp_path: Path,
) -> None:
    file = await sqlite_file_of(tmp_path, SCHEMA_VERSION - 1)
    before = file.read_bytes()
    with pytest.raises(OldFormat, match="schema version 1; this version knows 2") as caught:
        await SqliteMetadataStore.open(file)
    assert file.read_bytes() == before
    settings = LocalNodes(tmp_path).settings["n1"]
    todo = last_words(caught.value, settings).todo
    assert "start the older version again; or, one node after the other, move" in todo
    assert "gets everything again from the other nodes" in todo


def test_older_chunk_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OldFormat, match="layout 1; known is 2"):
        chunk_directory(tmp_path, layout=1)


def test_note_of_the_scrub_is_none() -> None:
    """Losing it costs work: the walk starts over."""
    note: dict[str, Any] = msgspec.to_builtins(Progress(is_walking=True))
    assert decode_progress(msgspec.json.encode(note), 1).is_walking
    with pytest.raises(ValueError, match="another version"):
        decode_progress(msgspec.json.encode(note | {"format": NOTE_FORMAT + 1}), 1)


def test_notice_of_a_newer_version_is_ignored() -> None:
    """The bus is a hint channel; the version is in what its MAC is made of."""
    assert unseal(SECRET, seal(SECRET, Notice(term=1, index=2))) == Notice(term=1, index=2)
    data = msgspec.msgpack.encode(Notice(term=1, index=2))
    mac = hmac.new(SECRET, b"astra-notice-2" + data, hashlib.sha256).digest()
    assert unseal(SECRET, mac + data) is None
