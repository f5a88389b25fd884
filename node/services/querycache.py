"""HEAD and LIST answers that can be given without the store, and when they may be believed.

An entry says at which applied index it was filled and on which access state it was allowed. It
counts while (1) its key carries the present term and it bears the seal of this process for this
key, so this very process filled it as the leader, (2) the witness knows no later change of what it
shows, and (3) the asker decided on the same access state, which (2) says is still the present one.
Anything else is a miss. Nothing that Redis may lose, delay or resurrect can make an answer stale,
and nothing that it damages, mixes up or is given by others is ever an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

import msgspec

from astra.commands import Command, CopyObject, DeleteObjects, PutObject
from astra.decoding import UNREADABLE
from astra.log import get_logger
from astra.ports import Cache
from astra.wire import Epochs, ListObjects, ListVersions, Locate, Located, ObjectPage, VersionPage
from node.services.witness import Witness

Query = Locate | ListObjects | ListVersions
Answer = Located | ObjectPage | VersionPage

_NO_EPOCHS: Final = Epochs()
_SEAL_BYTES: Final = 16
_log = get_logger("query")


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    index: int
    epochs: Epochs
    answer: Answer


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Entry] = msgspec.msgpack.Decoder(_Entry)


class QueryCache:
    """`term` is what the caller believes it leads in; it judges its lease itself."""

    def __init__(self, cache: Cache, witness: Witness, cluster_id: str) -> None:
        self._cache = cache
        self._witness = witness
        self._cluster = cluster_id.encode()
        self._last_term = 0
        self._secret = os.urandom(32)  # known to nobody: no entry outlives the process

    async def find(self, query: Query, term: int) -> Answer | None:
        """A believable answer, or None."""
        if not is_cacheable(query):
            return None
        key = self._key(query, term)
        raw = await self._cache.get(key)
        if raw is None:
            return None
        data = memoryview(raw)[_SEAL_BYTES:]
        if not hmac.compare_digest(self._seal(key, data), raw[:_SEAL_BYTES]):
            _log.warning("the cache held something that is not ours")
            return None
        try:
            entry = _decoder.decode(data)
        except UNREADABLE:
            return None
        # Judged after the wait: a change in between counts.
        if entry.index < self._last_change(query) or entry.epochs != query.epochs:
            return None
        return entry.answer

    async def fill(self, query: Query, term: int, *, index: int, answer: Answer) -> None:
        """`index`: applied before the answer was read. The answer was admitted on the query's
        epochs."""
        self._last_term = term
        if is_cacheable(query) and index >= self._last_change(query):
            key = self._key(query, term)
            data = _encoder.encode(_Entry(index, query.epochs, answer))
            await self._cache.put(key, self._seal(key, data) + data)

    async def invalidate(self, command: Command) -> None:
        """Frees the HEAD answers of the keys that `command` changed."""
        keys: list[bytes] = []
        match command:
            case PutObject() | CopyObject():
                keys = [command.key]
            case DeleteObjects():
                keys = [entry.key for entry in command.entries]
            case _:
                return
        bucket = command.bucket
        await self._cache.delete([self._head_key(bucket, key, self._last_term) for key in keys])

    def _seal(self, key: bytes, data: bytes | memoryview) -> bytes:
        seal = hashlib.blake2b(join_key(key), key=self._secret, digest_size=_SEAL_BYTES)
        seal.update(data)
        return seal.digest()

    def _last_change(self, query: Query) -> int:
        if isinstance(query, Locate):
            return self._witness.last_change_of_key(query.bucket, query.key)
        return self._witness.last_change_of_bucket(query.bucket)

    def _key(self, query: Query, term: int) -> bytes:
        if isinstance(query, Locate):
            return self._head_key(query.bucket, query.key, term)
        shape = msgspec.structs.replace(query, epochs=_NO_EPOCHS)
        return join_key(self._cluster, b"%d" % term, b"list", _encoder.encode(shape))

    def _head_key(self, bucket: str, key: bytes, term: int) -> bytes:
        return join_key(self._cluster, b"%d" % term, b"head", bucket.encode(), key)


def is_cacheable(query: Query) -> bool:
    """HEAD of the newest version, and LIST pages, asked by someone who says on which state."""
    if query.epochs.access is None or query.epochs.bucket is None:
        return False
    if isinstance(query, Locate):
        return query.version_id is None and not query.with_data and not query.with_parts
    return True


def join_key(*parts: bytes) -> bytes:
    """Unambiguous for any bytes: each part is preceded by its length."""
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)
