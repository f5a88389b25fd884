"""Commands into a memory store through the log's own encoding, for tests of apply and listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from astra.commands import (
    AnyCommand,
    NewBlob,
    ObjectHead,
    Proposal,
    PutObject,
    Result,
    encode_proposal,
)
from astra.model import TABLES, Doc, Key
from astra.ports import MetadataStore, MetadataTxn, MetadataView
from astra.wire import Entry, EntryKind
from node.apply import apply_entries
from node.metadata.memory import MemoryMetadataStore

T = TypeVar("T")
Q = TypeVar("Q")

START_MS = 1_700_000_000_000
OWNER = "owner"
HEAD = ObjectHead(owner_id=OWNER)


class Tables:
    """A store with its log: `do` appends one command and applies it."""

    def __init__(self) -> None:
        self.store = MemoryMetadataStore()
        self.log: list[Entry] = []
        self.now_ms = START_MS
        self._blobs = 0

    def entry(
        self,
        command: AnyCommand,
        *,
        request_id: str | None = None,
        access_epoch: int | None = None,
        bucket_epoch: int | None = None,
    ) -> Entry:
        index = len(self.log) + 1
        proposal = Proposal(
            request_id=f"request-{index}" if request_id is None else request_id,
            time_ms=self.now_ms,
            salt=index.to_bytes(8, "big"),
            command=command,
            access_epoch=access_epoch,
            bucket_epoch=bucket_epoch,
        )
        entry = Entry(index, 1, EntryKind.COMMAND, encode_proposal(proposal))
        self.log.append(entry)
        return entry

    async def do(
        self,
        command: AnyCommand,
        *,
        request_id: str | None = None,
        access_epoch: int | None = None,
        bucket_epoch: int | None = None,
    ) -> Result:
        entry = self.entry(
            command, request_id=request_id, access_epoch=access_epoch, bucket_epoch=bucket_epoch
        )
        (result,) = await apply_to(self.store, [entry])
        return result

    async def ask(self, question: Callable[[MetadataView, Q], Awaitable[T]], query: Q) -> T:
        """A function of node.listing or node.lookup."""

        async def body(view: MetadataView) -> T:
            return await question(view, query)

        return await self.store.read(body)

    def blob_id(self) -> str:
        self._blobs += 1
        return f"{self.now_ms:012x}{self._blobs:020x}"

    def inline(self, data: bytes) -> NewBlob:
        return NewBlob(blob_id=self.blob_id(), size=len(data), data=data)

    def held(self, size: int, *holders: str) -> NewBlob:
        return NewBlob(blob_id=self.blob_id(), size=size, holders=holders or ("n1", "n2"))

    def put(self, bucket: str, key: bytes, etag: str = "etag", size: int = 3) -> PutObject:
        return PutObject(
            bucket=bucket, key=key, head=HEAD, etag=etag, size=size, blob=self.held(size)
        )


async def apply_to(store: MetadataStore, entries: Sequence[Entry]) -> list[Result]:
    async def body(txn: MetadataTxn) -> list[Result]:
        return await apply_entries(txn, entries)

    return await store.write(body)


async def dump(store: MetadataStore) -> dict[str, list[tuple[Key, Doc]]]:
    """All rows of all tables."""

    async def body(view: MetadataView) -> dict[str, list[tuple[Key, Doc]]]:
        return {table.name: list(await view.scan(table, (), None, 10**6)) for table in TABLES}

    return await store.read(body)
