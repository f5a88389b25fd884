"""Random histories of commands beside a plain model of S3, and what must agree.

The model keeps, per key, a list of versions, newest first, and knows nothing of tables.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from astra import wire
from astra.commands import (
    AbortUpload,
    CompleteUpload,
    Condition,
    CopyObject,
    CopyPart,
    CreateBucket,
    CreateUpload,
    DeletedMany,
    DeleteEntry,
    DeleteObjects,
    Done,
    NamedPart,
    PartDone,
    PutDone,
    PutObject,
    PutPart,
    Refusal,
    Result,
    SetVersioning,
    UploadDone,
)
from astra.constants import PART_SIZE_MIN
from astra.errors import RefusalCode
from astra.model import (
    BLOBS,
    GARBAGE,
    INLINE,
    MANIFESTS,
    NULL_VERSIONS,
    OBJECTS,
    PARTS,
    VERSIONS,
    Doc,
    Extent,
    Key,
    Manifest,
    ObjectVersion,
    Part,
    Versioning,
    VersionRef,
)
from node.listing import list_objects, list_versions
from tests.support.metadata_entries import HEAD, OWNER, Tables, dump

BUCKET = "bucket"
KEYS = [b"a", b"a/b", b"a/c", b"b", b"b/x/y", b"z\xff"]
NO_EPOCHS = wire.Epochs()


@dataclass(kw_only=True)
class _Version:
    version_id: str
    etag: str
    size: int
    is_marker: bool = False
    order: int = 0


@dataclass
class _Model:
    versioning: Versioning = Versioning.OFF
    keys: dict[bytes, list[_Version]] = field(default_factory=dict)
    uploads: dict[str, tuple[bytes, dict[int, tuple[str, int]]]] = field(default_factory=dict)

    def newest(self, key: bytes) -> _Version | None:
        return self.keys.get(key, [None])[0]

    def live(self, key: bytes) -> _Version | None:
        newest = self.newest(key)
        return None if newest is None or newest.is_marker else newest

    def add(self, key: bytes, version: _Version) -> None:
        stack = self.keys.setdefault(key, [])
        if version.version_id == "null":
            stack[:] = [old for old in stack if old.version_id != "null"]
        stack.insert(0, version)

    def remove(self, key: bytes, version_id: str) -> _Version | None:
        stack = self.keys.get(key, [])
        gone = next((old for old in stack if old.version_id == version_id), None)
        if gone is not None:
            stack.remove(gone)
        if not stack:
            self.keys.pop(key, None)
        return gone

    def refusal(self, key: bytes, condition: Condition) -> RefusalCode | None:
        live = self.live(key)
        if condition.if_match and live is None:
            return RefusalCode.NO_SUCH_KEY
        if condition.if_match and live is not None and live.etag not in condition.if_match:
            return RefusalCode.PRECONDITION_FAILED
        if condition.if_none_match and live is not None:
            return RefusalCode.PRECONDITION_FAILED
        return None


class Run:
    """One random history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tables = Tables()
        self.model = _Model()
        self.etags = 0

    async def step(self) -> None:
        self.tables.now_ms += self.random.choice([0, 1, 1000, -500])
        action = self.random.choice(
            [self.put, self.put, self.put, self.copy, self.delete, self.delete, self.delete_many,
             self.delete_version, self.delete_version, self.versioning, self.begin, self.part,
             self.part, self.copy_part, self.finish, self.finish, self.abort]
        )  # fmt: skip
        await action()

    def key(self) -> bytes:
        return self.random.choice(KEYS)

    def etag(self) -> str:
        self.etags += 1
        return f"etag-{self.etags}"

    def condition(self, key: bytes) -> Condition:
        live = self.model.live(key)
        return self.random.choice(
            [
                Condition(),
                Condition(),
                Condition(if_none_match=("*",)),
                Condition(if_match=("no-such-etag",)),
                Condition(if_match=(live.etag,) if live else ("no-such-etag",)),
            ]
        )

    def check_put(
        self, result: Result, key: bytes, refusal: RefusalCode | None, etag: str, size: int
    ) -> None:
        if refusal is not None:
            assert isinstance(result, Refusal)
            assert result.code is refusal
            return
        assert isinstance(result, PutDone), result
        assert (result.etag, result.size) == (etag, size)
        is_enabled = self.model.versioning is Versioning.ENABLED
        assert result.versioned is is_enabled
        assert (result.version_id != "null") is is_enabled
        self.model.add(
            key,
            _Version(version_id=result.version_id, etag=etag, size=size, order=result.order),
        )

    async def put(self) -> None:
        key, etag, size = self.key(), self.etag(), self.random.choice([0, 1, 5])
        condition = self.condition(key)
        is_inline = self.random.random() < 0.5
        blob = self.tables.inline(b"x" * size) if is_inline else self.tables.held(size)
        command = PutObject(
            bucket=BUCKET,
            key=key,
            head=HEAD,
            etag=etag,
            size=size,
            blob=blob if size else None,
            condition=condition,
        )
        refusal = self.model.refusal(key, condition)
        self.check_put(await self.tables.do(command), key, refusal, etag, size)

    def any_source(self) -> tuple[bytes, _Version] | None:
        live = [
            (key, version)
            for key, stack in sorted(self.model.keys.items())
            for version in stack
            if not version.is_marker
        ]
        return self.random.choice(live) if live else None

    async def copy(self) -> None:
        source = self.any_source()
        if source is None:
            return
        key, condition = self.key(), Condition()
        is_stale = self.random.random() < 0.1
        command = CopyObject(
            bucket=BUCKET,
            key=key,
            source_bucket=BUCKET,
            source_key=source[0],
            source_order=source[1].order + is_stale,
            owner_id=OWNER,
            condition=condition,
        )
        refusal = RefusalCode.SOURCE_CHANGED if is_stale else None
        result = await self.tables.do(command)
        self.check_put(result, key, refusal, source[1].etag, source[1].size)

    async def delete(self) -> None:
        await self._delete([DeleteEntry(key=self.key())])

    async def delete_many(self) -> None:
        count = self.random.randrange(8)
        await self._delete([DeleteEntry(key=self.key()) for _ in range(count)])

    async def delete_version(self) -> None:
        key = self.key()
        stack = self.model.keys.get(key, [])
        ids = [version.version_id for version in stack] + ["null", f"{5:016x}{0:016x}"]
        await self._delete([DeleteEntry(key=key, version_id=self.random.choice(ids))])

    async def _delete(self, entries: list[DeleteEntry]) -> None:
        command = DeleteObjects(bucket=BUCKET, owner_id=OWNER, entries=tuple(entries))
        result = await self.tables.do(command)
        assert isinstance(result, DeletedMany)
        assert len(result.entries) == len(entries)
        for entry, deleted in zip(entries, result.entries, strict=True):
            assert deleted.refused is None
            if entry.version_id is not None:
                gone = self.model.remove(entry.key, entry.version_id)
                assert deleted.was_marker is (gone is not None and gone.is_marker)
                assert deleted.version_id == entry.version_id
            elif self.model.versioning is Versioning.OFF:
                self.model.remove(entry.key, "null")
                assert deleted.marker_version_id is None
            else:
                assert deleted.marker_version_id is not None
                marker = _Version(
                    version_id=deleted.marker_version_id, etag="", size=0, is_marker=True
                )
                self.model.add(entry.key, marker)

    async def versioning(self) -> None:
        wanted = self.random.choice([Versioning.ENABLED, Versioning.SUSPENDED, Versioning.OFF])
        result = await self.tables.do(SetVersioning(bucket=BUCKET, versioning=wanted))
        if wanted is Versioning.OFF and self.model.versioning is not Versioning.OFF:
            assert isinstance(result, Refusal)
        else:
            assert result == Done()
            self.model.versioning = wanted

    async def begin(self) -> None:
        key = self.key()
        result = await self.tables.do(
            CreateUpload(bucket=BUCKET, key=key, head=HEAD, initiator_id=OWNER)
        )
        assert isinstance(result, UploadDone)
        self.model.uploads[result.upload_id] = (key, {})

    def upload(self) -> str | None:
        return self.random.choice(sorted(self.model.uploads)) if self.model.uploads else None

    async def part(self) -> None:
        upload_id = self.upload()
        if upload_id is None:
            return
        key, parts = self.model.uploads[upload_id]
        number, etag = self.random.randrange(1, 5), self.etag()
        size = PART_SIZE_MIN if self.random.random() < 0.8 else 7
        command = PutPart(
            bucket=BUCKET,
            key=key,
            upload_id=upload_id,
            number=number,
            size=size,
            etag=etag,
            blob=self.tables.held(size),
        )
        assert isinstance(await self.tables.do(command), PartDone)
        parts[number] = (etag, size)

    async def copy_part(self) -> None:
        upload_id, source = self.upload(), self.any_source()
        if upload_id is None or source is None or source[1].size == 0:
            return
        key, parts = self.model.uploads[upload_id]
        offset = self.random.randrange(source[1].size)
        length = self.random.randrange(1, source[1].size - offset + 1)
        number, etag = self.random.randrange(1, 5), self.etag()
        command = CopyPart(
            bucket=BUCKET,
            key=key,
            upload_id=upload_id,
            number=number,
            source_bucket=BUCKET,
            source_key=source[0],
            source_order=source[1].order,
            offset=offset,
            length=length,
            etag=etag,
        )
        assert isinstance(await self.tables.do(command), PartDone)
        parts[number] = (etag, length)

    async def finish(self) -> None:
        upload_id = self.upload()
        if upload_id is None:
            return
        key, parts = self.model.uploads[upload_id]
        numbers = sorted(self.random.sample(sorted(parts), self.random.randrange(len(parts) + 1)))
        etag, size = self.etag(), sum(parts[number][1] for number in numbers)
        condition = self.condition(key)
        command = CompleteUpload(
            bucket=BUCKET,
            key=key,
            upload_id=upload_id,
            parts=tuple(NamedPart(number=number, etag=parts[number][0]) for number in numbers),
            etag=etag,
            size=size,
            condition=condition,
        )
        refusal = self.model.refusal(key, condition)
        if not numbers:
            refusal = RefusalCode.INVALID_ARGUMENT
        elif any(parts[number][1] < PART_SIZE_MIN for number in numbers[:-1]):
            refusal = RefusalCode.PART_TOO_SMALL
        result = await self.tables.do(command)
        self.check_put(result, key, refusal, etag, size)
        if refusal is None:
            del self.model.uploads[upload_id]
            assert await self.tables.do(command) == result  # asked again, under a new request id

    async def abort(self) -> None:
        upload_id = self.upload()
        if upload_id is None or self.random.random() < 0.5:
            return
        key, _ = self.model.uploads.pop(upload_id)
        command = AbortUpload(bucket=BUCKET, key=key, upload_id=upload_id)
        assert await self.tables.do(command) == Done()
        again = await self.tables.do(command)
        assert isinstance(again, Refusal)
        assert again.code is RefusalCode.NO_SUCH_UPLOAD

    async def check(self) -> None:
        check_census(await dump(self.tables.store))
        limit = self.random.choice([1, 2, 3, 1000])
        assert await self.listed_versions(limit) == [
            (key, version.version_id, version.etag, version.is_marker, place == 0)
            for key, stack in sorted(self.model.keys.items())
            for place, version in enumerate(stack)
        ]
        assert await self.listed_keys(limit) == [
            (key, live.etag, live.size)
            for key in sorted(self.model.keys)
            if (live := self.model.live(key)) is not None
        ]

    async def listed_versions(self, limit: int) -> list[tuple[bytes, str, str, bool, bool]]:
        query = wire.ListVersions(bucket=BUCKET, epochs=NO_EPOCHS, limit=limit)
        found: list[tuple[bytes, str, str, bool, bool]] = []
        while True:
            page = await self.tables.ask(list_versions, query)
            assert len(page.versions) <= limit
            for row in page.versions:
                version = row.version
                found.append((row.key, version.version_id, version.etag, version.is_marker,
                              row.is_latest))  # fmt: skip
            if not page.resume_key:
                return found
            assert len(page.versions) == limit
            query = wire.ListVersions(
                bucket=BUCKET,
                epochs=NO_EPOCHS,
                limit=limit,
                after_key=page.resume_key,
                after_version=page.resume_version,
            )

    async def listed_keys(self, limit: int) -> list[tuple[bytes, str, int]]:
        found: list[tuple[bytes, str, int]] = []
        after = b""
        while True:
            query = wire.ListObjects(bucket=BUCKET, epochs=NO_EPOCHS, limit=limit, after=after)
            page = await self.tables.ask(list_objects, query)
            found.extend((row.key, row.version.etag, row.version.size) for row in page.objects)
            if not page.resume:
                return found
            assert len(page.objects) == limit
            after = page.resume


def check_census(tables: dict[str, list[tuple[Key, Doc]]]) -> None:
    """References equal the extents that are there; no row without its owner."""
    counts: Counter[str] = Counter()
    orders: dict[Key, list[ObjectVersion]] = {}
    manifests = dict(tables[MANIFESTS.name])
    for name in (OBJECTS.name, VERSIONS.name):
        for key, doc in tables[name]:
            assert isinstance(doc, ObjectVersion)
            orders.setdefault(key[:2], []).append(doc)
            parts = _parts_of(manifests.pop((*key[:2], doc.order), None))
            assert len(parts) == doc.part_count
            counts.update(_ids(doc.extents))
            counts.update(_ids(extent for part in parts for extent in part.extents))
    assert not manifests
    for _, doc in tables[PARTS.name]:
        assert isinstance(doc, Part)
        assert sum(extent.length for extent in doc.extents) == doc.size
        counts.update(_ids(doc.extents))
    check_blobs(tables, counts)
    newest = {key for key, _ in tables[OBJECTS.name]}
    nulls = dict(tables[NULL_VERSIONS.name])
    for key, stack in orders.items():
        assert key in newest
        assert [doc.order for doc in stack] == sorted((d.order for d in stack), reverse=True)
        older_nulls = [doc.order for doc in stack[1:] if doc.version_id == "null"]
        ref = nulls.pop(key, None)
        assert older_nulls == ([ref.order] if isinstance(ref, VersionRef) else [])
    assert not nulls


def check_blobs(tables: dict[str, list[tuple[Key, Doc]]], counts: Counter[str]) -> None:
    inline = {key[0] for key, _ in tables[INLINE.name]}
    blobs = {key[0]: doc for key, doc in tables[BLOBS.name]}
    assert {blob_id: getattr(doc, "references", None) for blob_id, doc in blobs.items()} == counts
    assert inline == {blob_id for blob_id, doc in blobs.items() if getattr(doc, "is_inline", 0)}
    assert not {key[0] for key, _ in tables[GARBAGE.name]} & set(blobs)


def _parts_of(doc: Doc | None) -> tuple[Part, ...]:
    return doc.parts if isinstance(doc, Manifest) else ()


def _ids(extents: object) -> list[str]:
    assert hasattr(extents, "__iter__")
    return [extent.blob_id for extent in extents if isinstance(extent, Extent)]


async def random_history(seed: int, steps: int, *, check_every: int) -> Run:
    run = Run(seed)
    assert await run.tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER)) == Done()
    for step in range(steps):
        await run.step()
        if step % check_every == 0:
            await run.check()
    await run.check()
    return run
