"""A short run of every fuzz target; `python -m tests.fuzz --count 1000000` is the long one."""

import ast
import asyncio
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from astra.commands import PROPOSAL_FORMAT, decode_proposal, decode_result
from astra.decoding import UNREADABLE
from astra.errors import AstraError, DamagedLog, UnknownFormat, WireError
from astra.frame import PRELUDE_SIZE, decode_header, decode_prelude
from astra.frame_server import FrameServer, Routes
from gateway.s3api.errors import S3Error
from gateway.s3api.listing_tokens import decode_buckets_token
from node.chunkstore.layout import initialise
from node.chunkstore.store import DiskChunkStore
from node.metadata.raftrows import decode_entry
from node.raft.log import decode_membership
from tests.fuzz.run import TARGETS, fuzz
from tests.fuzz.targets import SECRET, Target
from tests.fuzz.wiretargets import Strangers, frame, honest_handshake
from tests.support.services import ROOT

INPUTS = 2500
DEEP = b"\x91" * 3000
NOT_UTF8 = b"\xa4\xff\xfe\xfd\xfc"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_fuzz_raises_nothing_that_is_not_declared(target: type[Target]) -> None:
    fuzz(target, count=INPUTS // target.cost, seed=3)


def test_fuzz_a_decoder_that_raises_something_else_is_found_out() -> None:
    class Careless(Strangers):
        name = "careless"

        def feed(self, data: bytes) -> None:
            msgspec.msgpack.decode(data)

    with pytest.raises(AssertionError, match="input 0"):
        fuzz(Careless, count=10, seed=1)


@pytest.mark.parametrize(
    ("decode", "data", "error"),
    [
        (decode_proposal, PROPOSAL_FORMAT + b"\x96" + NOT_UTF8, UnknownFormat),
        (decode_proposal, PROPOSAL_FORMAT + b"\x9f" + DEEP, UnknownFormat),
        (decode_result, b"\xc1", UnknownFormat),
        (decode_result, NOT_UTF8, UnknownFormat),
        (decode_membership, b"\x93\x91" + NOT_UTF8, DamagedLog),
        (decode_membership, b"\x9f" + DEEP, DamagedLog),
    ],
)
def test_decode_text_or_depth_that_cannot_be_raises_what_it_declares(
    decode: Callable[[bytes], object], data: bytes, error: type[AstraError]
) -> None:
    with pytest.raises(error):
        decode(data)


def test_decode_header_nested_deeper_than_the_stack_is_a_wire_error() -> None:
    header = b"\x82\xa4type\xa4beat\xa1x" + DEEP
    data = frame(header)
    prelude = decode_prelude(data, trusted=True)
    with pytest.raises(WireError):
        decode_header(prelude, data[PRELUDE_SIZE:])


def test_decode_entry_with_a_negative_index_is_damage() -> None:
    with pytest.raises(DamagedLog):
        decode_entry((-1, 1, 0, b"", 0))


def test_decode_buckets_token_that_is_not_text_is_an_invalid_argument() -> None:
    token = urlsafe_b64encode(b"\x01\x91" + NOT_UTF8).rstrip(b"=").decode()
    with pytest.raises(S3Error) as caught:
        decode_buckets_token(token)
    assert caught.value.code == "InvalidArgument"


async def test_handshake_proof_of_another_connection_is_refused() -> None:
    server = FrameServer(secret=SECRET, node_id="n1", routes=Routes())
    honest, wire = honest_handshake(server)
    assert honest.trusted
    honest.connection_lost(None)

    target = Strangers(random.Random(1))
    for _ in range(200):
        target.feed(b"".join(target.recorded))
    assert not target.heard
    await asyncio.sleep(0)
    assert wire.sent


NO_NAMES = ("../../etc/passwd", "/etc/passwd", "", ".", "a" * 32 + "/..", "A" * 32, "0" * 31 + "\0")


def test_chunk_store_takes_no_name_that_is_a_path(tmp_path: Path) -> None:
    chunks = tmp_path / "chunks"
    chunks.mkdir()
    initialise(str(chunks), cluster_id="c", node_id="n1")
    store = DiskChunkStore(str(chunks), cluster_id="c", node_id="n1")
    before = names_below(tmp_path)
    for name in NO_NAMES:
        for act in (store.create, store.open, store.delete, store.verify, store.quarantine):
            with pytest.raises(ValueError, match="blob id"):
                act(name)
    store.close()
    assert names_below(tmp_path) == before


def names_below(directory: Path) -> int:
    return sum(1 for _ in directory.rglob("*"))


def test_no_module_can_turn_bytes_into_code() -> None:
    """pickle and its like execute what they read: none of them is imported anywhere."""
    dangerous = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "code", "runpy"}
    calls = {"eval", "exec", "compile", "__import__"}
    found = []
    for package in ("astra", "gateway", "node"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = {
                    alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")
                }
                module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
                called = _called(node)
                if {*names, module} & dangerous or called in calls:
                    found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert not found


def _called(node: ast.AST) -> str:
    """The plain name that is called, or ''."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    return ""


def test_unreadable_covers_what_the_decoder_raises() -> None:
    class Small(msgspec.Struct, array_like=True):
        name: str

    for data in (b"\xc1", b"\x91" + NOT_UTF8, b"\x92\xa0" + DEEP):
        with pytest.raises(UNREADABLE):
            msgspec.msgpack.decode(data, type=Small)
