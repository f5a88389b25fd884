"""What the clients do: many small operations on few keys, recorded with their answers."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

from astra.commands import PutUser
from astra.constants import CHUNK_SIZE
from astra.errors import AstraError
from astra.model import AccessKey, User
from astra.wire import Commit, Committed, Epochs
from tests.sim.client import ACCESS_KEY, Answer, Client, Denied, Unknown
from tests.sim.history import Refusal, Write
from tests.sim.world import World

KEYS: Final = ("a", "b/1", "b/2", "c")
_REFUSALS: Final = {
    "PreconditionFailed": Refusal.PRECONDITION,
    "NoSuchKey": Refusal.NO_SUCH_KEY,
}


class Workload:
    """`operations` in all, by clients that come and go with their gateways."""

    def __init__(
        self, world: World, operations: int, clients: int, *, pause_s: float = 0.25
    ) -> None:
        self.world = world
        self.pause_s = pause_s  # of a client, between two operations
        self.history = world.history
        self.left = operations
        self.rng = random.Random(f"workload-{world.seed}")
        self.big_left = 2 if self.rng.random() < 0.03 else 0
        self.numbers = 0
        self.clients = clients
        self.is_ready = False
        self.seen: dict[str, str] = {}  # by key: an ETag that a client saw lately

    # --- beginning -----------------------------------------------------------------------------

    async def prepare(self, client: Client) -> None:
        """The user and the bucket; tried until it works."""
        user = User(user_id="root", display_name="root", is_root=True)
        key = AccessKey(access_key=ACCESS_KEY, user_id="root", secret="s" * 40)
        command = PutUser(user=user, keys=(key,), replace=True)
        commit = Commit(request_id="prepare", epochs=Epochs(), command=command)
        while True:
            try:
                await client.context.cluster.ask(commit, Committed)
                break
            except AstraError:
                continue
        is_versioned = self.rng.random() < 0.25
        await self._insist(lambda: client.ask("PUT"))
        if is_versioned:
            await self._insist(lambda: self.set_versioning(client, "Enabled"))
        self.is_ready = True

    async def set_versioning(self, client: Client, status: str) -> Answer:
        body = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        return await client.ask("PUT", query={"versioning": ""}, body=body.encode())

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> None:
        while True:
            try:
                await call()
                return
            except Unknown:
                await asyncio.sleep(0.05)
            except Denied as denied:
                if denied.code == "BucketAlreadyOwnedByYou":
                    return
                raise

    def start_clients(self, gateway: str) -> None:
        for number in range(self.clients):
            self.world.spawn(gateway, self._client(gateway, number))
        self.world.spawn(gateway, self._reader(gateway))

    async def _client(self, gateway: str, number: int) -> None:
        client = self.world.clients[gateway]
        while self.left > 0:
            self.left -= 1
            await self.one(client, f"{gateway}.{number}")
            await asyncio.sleep(self.rng.expovariate(1 / self.pause_s))

    async def _reader(self, gateway: str) -> None:
        """Looks now and then: often the first to ask a leader that was paused."""
        client = self.world.clients[gateway]
        while self.left > 0:
            await asyncio.sleep(self.rng.uniform(0.3, 1.5))
            key = self.rng.choice(KEYS)
            await (self.head if self.rng.random() < 0.5 else self.get)(client, key, "reader")

    # --- one operation -------------------------------------------------------------------------

    async def one(self, client: Client, who: str) -> None:
        key = self.rng.choice(KEYS)
        chance = self.rng.random()
        self.numbers += 1
        name = f"{who} #{self.numbers}"
        if chance < 0.22:
            await self.get(client, key, name)
        elif chance < 0.34:
            await self.head(client, key, name)
        elif chance < 0.42:
            await self.list(client, name)
        elif chance < 0.70:
            await self.put(client, key, name)
        elif chance < 0.78:
            await self.put_if(client, key, name)
        elif chance < 0.88:
            await self.delete(client, key, name)
        elif chance < 0.93:
            await self.copy(client, key, name)
        elif chance < 0.97:
            await self.multipart(client, key, name)
        elif chance < 0.99:
            await self.delete_some(client, name)
        else:
            await self.touch_bucket(client)

    async def get(self, client: Client, key: str, name: str) -> bool:
        """False: no answer."""
        begin = self.history.begin()
        try:
            answer = await client.ask("GET", key)
        except Unknown:
            return False
        except Denied as denied:
            self._expect(denied, "NoSuchKey")
            self.history.read(key, begin, None, f"GET {key} by {name}")
            return True
        self.history.check_body(key, answer.etag, answer.body)
        self._saw(key, answer.etag)
        self.history.read(key, begin, answer.etag, f"GET {key} by {name}")
        return True

    async def head(self, client: Client, key: str, name: str) -> None:
        begin = self.history.begin()
        value: str | None = None
        try:
            value = (await client.ask("HEAD", key)).etag
            self._saw(key, value)
        except Unknown:
            return
        except Denied as denied:
            self._expect(denied, "NoSuchKey")
        self.history.read(key, begin, value, f"HEAD {key} by {name}")

    async def list(self, client: Client, name: str) -> None:
        """Each key of a page is a read of that key: present with this ETag, or absent."""
        begin = self.history.begin()
        try:
            found = await client.list_all(self.rng.choice((1000, 1000, 2)))
        except Unknown:
            return
        strangers = set(found) - set(KEYS)
        if strangers:
            raise AssertionError(f"LIST names {strangers}, which nobody put")
        for key in KEYS:
            self.history.read(key, begin, found.get(key), f"LIST by {name}")

    async def put(self, client: Client, key: str, name: str, headers: dict[str, str] | None = None,
                  *, if_match: str | None = None) -> None:  # fmt: skip
        body = self.history.new_body(f"{name} {key}", self._size())
        etag = hashlib.md5(body).hexdigest()
        step = self.history.write(
            key, etag, f"PUT {key} of {len(body)} by {name}",
            if_match=if_match, if_none_match=bool(headers) and if_match is None,
        )  # fmt: skip
        await self._write(key, step, client.put(key, body, headers or {}))

    def _size(self) -> int:
        if self.big_left and self.rng.random() < 0.2:
            self.big_left -= 1
            return CHUNK_SIZE + 1000
        return self.rng.choice((30, 120, 120, 300, 700))

    async def put_if(self, client: Client, key: str, name: str) -> None:
        if self.rng.random() < 0.5:
            await self.put(client, key, name, {"if-none-match": "*"})
        else:
            etag = self.seen.get(key, "0" * 32)
            await self.put(client, key, name, {"if-match": f'"{etag}"'}, if_match=etag)

    async def delete(self, client: Client, key: str, name: str) -> None:
        step = self.history.write(key, None, f"DELETE {key} by {name}")
        await self._write(key, step, client.ask("DELETE", key))

    async def delete_some(self, client: Client, name: str) -> None:
        keys = sorted(self.rng.sample(KEYS, 2))
        steps = [(key, self.history.write(key, None, f"DELETE 2 by {name}")) for key in keys]
        try:
            await client.delete_many(keys)
        except Unknown:
            return
        for _, step in steps:
            self.history.answer(step)

    async def copy(self, client: Client, key: str, name: str) -> None:
        """A read of the source and a write here. What an unanswered one copied is not known: any
        body that the source ever had, so nobody may conclude from it."""
        source = self.rng.choice([each for each in KEYS if each != key])
        etag = self.seen.get(source)
        if etag is None:
            return
        # If-Match on the source names the bytes, so that an unanswered copy is a known write.
        step = self.history.write(key, etag, f"COPY {source} to {key} by {name}")
        headers = {
            "x-amz-copy-source": f"/{client.bucket}/{source}",
            "x-amz-copy-source-if-match": f'"{etag}"',
        }
        begin = step.begin
        try:
            await client.ask("PUT", key, headers=headers)
        except Unknown:
            return
        except Denied:
            self.history.drop(key, step)
            return
        self.history.answer(step)
        self.history.read(source, begin, etag, f"COPY's source by {name}")

    async def multipart(self, client: Client, key: str, name: str) -> None:
        try:
            upload_id = await client.start_upload(key)
            bodies = [
                self.history.new_body(f"{name} {key} part {part}", self._size())
                for part in range(1, self.rng.randrange(2, 4))
            ]
            etags = [
                await client.put_part(key, upload_id, part, body)
                for part, body in enumerate(bodies, start=1)
            ]
            if self.rng.random() < 0.2:
                await client.ask("DELETE", key, query={"uploadId": upload_id})
                return
        except Unknown:
            return
        except Denied as denied:
            self._expect(denied, "RequestTimeout")
            return
        digests = b"".join(bytes.fromhex(etag) for etag in etags)
        whole = f"{hashlib.md5(digests).hexdigest()}-{len(etags)}"
        self.history.know_body(whole, b"".join(bodies))
        step = self.history.write(key, whole, f"COMPLETE {key} by {name}")
        await self._write(key, step, client.complete(key, upload_id, etags))

    async def touch_bucket(self, client: Client) -> None:
        """A change of the bucket: every epoch that gateways decided on is old now."""
        tag = f"<Tag><Key>n</Key><Value>{self.numbers}</Value></Tag>"
        tags = f"<Tagging><TagSet>{tag}</TagSet></Tagging>"
        try:
            await client.ask("PUT", query={"tagging": ""}, body=tags.encode())
        except Unknown:
            return

    async def _write(self, key: str, step: Write, call: Awaitable[object]) -> None:
        try:
            await call
        except Unknown:
            return
        except Denied as denied:
            if denied.code == "RequestTimeout":  # the blob is a day old, by a clock that jumped
                self.history.drop(key, step)
                return
            refusal = _REFUSALS.get(denied.code)
            is_conditional = step.if_match is not None or step.if_none_match
            if refusal is None or not is_conditional:
                raise AssertionError(f"{step.label} was refused: {denied}") from denied
            self.history.answer(step, refusal)
        else:
            self.history.answer(step)
            if step.value is not None:
                self._saw(key, step.value)

    def _saw(self, key: str, etag: str) -> None:
        self.seen[key] = etag

    @staticmethod
    def _expect(denied: Denied, code: str) -> None:
        if denied.code != code:
            raise AssertionError(f"refused with {denied}, not {code}") from denied
