"""Real nodes in this process, on loopback, with SQLite in a private directory.

Everything is the product's own composition (node.app.serve_node); a client is what a gateway
is: a Dialer that follows NotLeader.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from astra.commands import AnyCommand, CreateBucket, NewBlob, ObjectHead, PutObject, Result
from astra.errors import AstraError, NotLeader, Refused
from astra.net import BulkStream, Dialer
from astra.wire import (
    BlobEnd,
    BlobPiece,
    BlobRead,
    BlobStored,
    BlobWrite,
    Commit,
    Committed,
    Epochs,
    GetStatus,
    Locate,
    Located,
    Message,
    NodeStatus,
    Placement,
)
from node.app import serve_node
from node.raft.config import RaftConfig
from node.settings import NodeSettings
from tests.support.ports import free_ports
from tests.support.services import Backends
from tests.support.wait import wait_until_async

M = TypeVar("M", bound=Message)

SECRET = b"a secret of the tests, 32 bytes long"
NO_EPOCHS = Epochs()
READY_SECONDS = 60.0


class LocalNodes:
    """`voters` nodes that vote, and `learners` that do not. Use with `async with`."""

    def __init__(self, directory: Path, *, voters: int = 3, learners: int = 0) -> None:
        names = [f"n{number}" for number in range(1, voters + learners + 1)]
        ports = free_ports(len(names))
        self.addresses = {
            name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)
        }
        self.voters = tuple(names[:voters])
        self.settings = {
            name: NodeSettings(
                node_id=name,
                cluster_id="testcluster",
                data_dir=directory / name,
                cluster_secret=SECRET,
                listen_port=port,
                peers=self.addresses,
                voters=self.voters,
                garbage_grace_s=0.0,
                garbage_interval_s=0.1,
                repair_delay_s=0.1,
                report_interval_s=0.2,
                peer_silence_s=3.0,  # the product's: all nodes share one loop with the test
                free_bytes_min=1,
                raft=RaftConfig(
                    election_timeout_min_ms=300, election_timeout_max_ms=600, heartbeat_ms=50
                ),
            )
            for name, port in zip(names, ports, strict=True)
        }
        self._running: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self.dialer = Dialer(secret=SECRET, role="gateway", peer_id="test")
        self.leader_address = self.addresses[names[0]]

    def use(self, backends: Backends) -> None:
        """PostgreSQL, Redis and RabbitMQ instead of the embedded parts. Before the start."""
        for name, dsn in zip(self.settings, backends.postgres, strict=False):
            self.change(name, metadata=dsn, redis_url=backends.redis, amqp_url=backends.amqp)

    async def __aenter__(self) -> "LocalNodes":
        await self.start(*self.settings)
        await wait_until_async(self.leader, READY_SECONDS, "a leader is elected")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.dialer.close()
        await asyncio.gather(*(self.stop(name) for name in list(self._running)))

    # --- nodes ---

    async def start(self, *names: str) -> None:
        for name in names:
            stop = asyncio.Event()
            task = asyncio.create_task(serve_node(self.settings[name], stop), name=name)
            self._running[name] = (task, stop)
        for name in names:
            await wait_until_async(lambda n=name: self._answers(n), READY_SECONDS, f"{name} is up")

    async def _answers(self, name: str) -> bool:
        task, _ = self._running[name]
        if task.done():
            task.result()
        return await self.status(name) is not None

    async def stop(self, name: str) -> None:
        """A clean stop; raises what the node died of."""
        task, stop = self._running.pop(name)
        stop.set()
        await task

    async def status(self, name: str) -> NodeStatus | None:
        """None: it does not answer, or is no node ("": nobody leads)."""
        if name not in self.addresses:
            return None
        try:
            client = self.dialer.control(self.addresses[name])
            answer = await client.call(GetStatus(), timeout_s=1.0)
        except AstraError:
            return None
        assert isinstance(answer, NodeStatus)
        return answer

    async def leader(self) -> str | None:
        """The name of a running node that says it leads."""
        for name in list(self._running):
            status = await self.status(name)
            if status is not None and status.role == "leader":
                return name
        return None

    async def the_leader(self) -> str:
        """Who leads, once one node says that it does, and nobody names another one."""
        found: list[str] = []

        async def is_agreed() -> bool:
            statuses = [await self.status(name) for name in list(self._running)]
            known = [status for status in statuses if status is not None]
            found[:] = [status.node_id for status in known if status.role == "leader"]
            named = {status.leader for status in known if status.leader is not None}
            return len(found) == 1 and named == set(found)

        await wait_until_async(is_agreed, READY_SECONDS, "the nodes agree on who leads")
        return found[0]

    async def all_know_each_other(self) -> None:
        async def known() -> bool:
            statuses = [await self.status(name) for name in self._running]
            return all(
                status is not None and not any("silent" in text for text in status.problems)
                for status in statuses
            )

        await wait_until_async(known, READY_SECONDS, "all nodes report to each other")

    async def all_are_level(self) -> None:
        """Every voter has applied the same, and votes: any one of them can be missed now. A node
        that lost its disk has the same tables before it is back in the group."""

        async def level() -> bool:
            statuses = [await self.status(name) for name in self.voters]
            indexes = {status.applied_index for status in statuses if status is not None}
            roles = {status.role for status in statuses if status is not None}
            has_all = None not in statuses and len(indexes) == 1 and 0 not in indexes
            return has_all and "learner" not in roles

        await wait_until_async(level, READY_SECONDS, "all voters have everything and vote")

    def change(self, name: str, **changes: object) -> None:
        """Settings for the next start of a node."""
        self.settings[name] = replace(self.settings[name], **changes)  # type: ignore[arg-type]  # checked by the dataclass's own validation

    # --- what a gateway does ---

    async def ask(self, message: Message, answer: type[M]) -> M:
        """The leader's answer, whoever that is by now."""
        found: list[Message] = []

        async def asked() -> bool:
            try:
                client = self.dialer.control(self.leader_address)
                found.append(await client.call(message, timeout_s=5.0))
            except Refused:
                raise
            except NotLeader as error:
                self._try_next(error.leader)
                return False
            except AstraError:
                self._try_next(None)
                return False
            return True

        await wait_until_async(asked, READY_SECONDS, f"{type(message).__name__} is answered")
        assert isinstance(found[0], answer)
        return found[0]

    def _try_next(self, hint: str | None) -> None:
        addresses = [self.addresses[name] for name in self._running]
        if hint is not None and hint != self.leader_address:
            self.leader_address = hint
        elif addresses:
            at = addresses.index(self.leader_address) if self.leader_address in addresses else -1
            self.leader_address = addresses[(at + 1) % len(addresses)]

    async def commit(self, command: AnyCommand, epochs: Epochs = NO_EPOCHS) -> Result:
        """The result of a command, exactly once however often it was sent."""
        request = Commit(request_id=uuid.uuid4().hex, epochs=epochs, command=command)
        return (await self.ask(request, Committed)).result

    async def make_bucket(self, name: str) -> None:
        await self.commit(CreateBucket(bucket=name, owner_id="owner"))

    async def put_inline(self, bucket: str, key: bytes, data: bytes) -> Result:
        return await self.commit(inline_put(bucket, key, data))

    async def locate(self, bucket: str, key: bytes, *, with_data: bool = True) -> Located:
        query = Locate(bucket=bucket, key=key, epochs=NO_EPOCHS, with_data=with_data)
        return await self.ask(query, Located)

    async def write_blob(self, address: str, blob_id: str, data: bytes) -> int:
        """One holder's copy; the size it says it has stored."""
        stream = await self.dialer.bulk(address)
        await stream.send(BlobWrite(blob_id=blob_id))
        for start in range(0, len(data), 1 << 20):
            await stream.send(BlobPiece(), data[start : start + (1 << 20)])
        await stream.send(BlobEnd(size=len(data)))
        message, _ = await stream.receive(timeout_s=10)
        assert isinstance(message, BlobStored)
        await stream.release()
        return message.size

    async def write_all(
        self, place: Placement, data: bytes, holders: Sequence[str] | None = None
    ) -> NewBlob:
        """Copies on the named holders (default: all that were placed)."""
        refs = [ref for ref in place.holders if holders is None or ref.node_id in holders]
        for ref in refs:
            await self.write_blob(ref.address, place.blob_id, data)
        return NewBlob(
            blob_id=place.blob_id, size=len(data), holders=tuple(ref.node_id for ref in refs)
        )

    async def read_blob(self, name: str, blob_id: str, *, offset: int = 0, length: int) -> bytes:
        stream = await self.dialer.bulk(self.addresses[name])
        try:
            data = await receive_blob(stream, blob_id, offset=offset, length=length)
        except AstraError:
            stream.abort()
            raise
        await stream.release()
        return data


async def receive_blob(stream: BulkStream, blob_id: str, *, offset: int, length: int) -> bytes:
    await stream.send(BlobRead(blob_id=blob_id, offset=offset, length=length))
    parts: list[bytes] = []
    while True:
        message, payload = await stream.receive(timeout_s=10)
        if isinstance(message, BlobEnd):
            assert message.size == length == sum(len(part) for part in parts)
            return b"".join(parts)
        assert isinstance(message, BlobPiece)
        parts.append(bytes(payload))


def put_of(bucket: str, key: bytes, blob: NewBlob | None) -> PutObject:
    """A PutObject with as little as possible around the blob."""
    size = 0 if blob is None else blob.size
    return PutObject(
        bucket=bucket,
        key=key,
        head=ObjectHead(owner_id="owner"),
        etag="0" * 32,
        size=size,
        blob=blob,
    )


def inline_put(bucket: str, key: bytes, data: bytes) -> PutObject:
    blob_id = f"{_wall_ms():012x}{uuid.uuid4().hex[:20]}"
    return put_of(bucket, key, NewBlob(blob_id=blob_id, size=len(data), data=data))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
