"""One segment from holders of which none is whole (FAULTS row 34)."""

from collections.abc import AsyncGenerator

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import BadChunk, Unavailable
from astra.net import Dialer
from astra.wire import HolderRef
from gateway.blob_read import BlobReader, Segment
from gateway.cluster import Cluster
from gateway.settings import GatewaySettings

SECRET = b"s" * 32
CHUNKS = 3
HOLDERS = [HolderRef(node_id=name, address=f"{name}:1") for name in ("n1", "n2", "n3")]


class Reader(BlobReader):
    """Holders with bad chunks, without a network."""

    def __init__(self, bad: dict[str, set[int]]) -> None:
        settings = GatewaySettings(gateway_id="g1", nodes=("n1:1",), cluster_secret=SECRET)
        dialer = Dialer(secret=SECRET, role="gateway", peer_id="g1")
        super().__init__(Cluster(dialer, settings), stall_s=1.0, timeout_s=1.0)
        self._bad = bad

    async def _read_from(
        self, holder: HolderRef, blob_id: str, offset: int, length: int, stall_s: float
    ) -> AsyncGenerator[memoryview, None]:
        for chunk in range(offset // CHUNK_SIZE, CHUNKS):
            if chunk in self._bad[holder.node_id]:
                raise BadChunk(blob_id, chunk)
            yield memoryview(bytes([chunk]) * CHUNK_SIZE)

    def _note_failure(self, holder: HolderRef, blob_id: str, error: Exception) -> None:
        pass


async def read(bad: dict[str, set[int]]) -> bytes:
    segment = Segment(blob_id="0" * 32, offset=0, length=CHUNKS * CHUNK_SIZE)
    return b"".join([bytes(each) async for each in Reader(bad).read_segment(segment, HOLDERS)])


async def test_each_chunk_comes_from_a_holder_where_it_is_good() -> None:
    body = b"".join(bytes([chunk]) * CHUNK_SIZE for chunk in range(CHUNKS))
    assert await read({"n1": {0}, "n2": {1}, "n3": {1, 2}}) == body
    assert await read({"n1": {0, 2}, "n2": {1, 2}, "n3": {0, 1}}) == body


async def test_chunk_that_is_bad_everywhere_ends_the_read() -> None:
    with pytest.raises(Unavailable):
        await read({"n1": {0, 2}, "n2": {2}, "n3": {2}})
