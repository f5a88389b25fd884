"""What the gateway remembers of keys, users and bucket settings, each with its epoch.

The cache may be stale: every request to the leader names the epochs on which it was allowed, and
the leader refuses old ones (DESIGN section 4). So a stale entry costs one more round, never a
stale grant. Absent keys and buckets are not remembered: they may appear at any moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from astra.constants import USERS_ASKED_MAX
from astra.model import AccessKey, Bucket, User
from astra.wire import (
    AccessFound,
    BucketFound,
    FindUsers,
    GetAccess,
    GetBucket,
    Notice,
    UsersFound,
)
from gateway.cluster import Cluster

V = TypeVar("V")

ANONYMOUS: Final = User(user_id="", display_name="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grantee:
    """Who asks. `key` None: anonymous."""

    user: User
    key: AccessKey | None
    epoch: int | None  # of users and keys, when it was looked up

    @property
    def is_anonymous(self) -> bool:
        return self.key is None


class _Remembered(Generic[V]):
    """A bounded map whose values end after a while; the oldest go first."""

    def __init__(self, *, seconds: float, entries_max: int) -> None:
        self._seconds = seconds
        self._entries_max = entries_max
        self._entries: dict[str, tuple[float, V]] = {}

    def get(self, name: str) -> V | None:
        entry = self._entries.get(name)
        if entry is None or entry[0] < asyncio.get_running_loop().time():
            return None
        return entry[1]

    def put(self, name: str, value: V) -> None:
        self._entries.pop(name, None)
        if len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = (asyncio.get_running_loop().time() + self._seconds, value)

    def forget(self, name: str) -> None:
        self._entries.pop(name, None)

    def clear(self) -> None:
        self._entries.clear()


class Access:
    """Keys and buckets as one gateway remembers them."""

    def __init__(self, cluster: Cluster, *, seconds: float, entries_max: int) -> None:
        self._cluster = cluster
        self._keys: _Remembered[Grantee] = _Remembered(seconds=seconds, entries_max=entries_max)
        self._buckets: _Remembered[Bucket] = _Remembered(seconds=seconds, entries_max=entries_max)
        self._owners: _Remembered[User] = _Remembered(seconds=seconds, entries_max=entries_max)

    async def grantee(self, access_key: str) -> Grantee | None:
        """The key and its user, or None when there is no such key."""
        found = self._keys.get(access_key)
        if found is None:
            answer = await self._cluster.ask(GetAccess(access_key=access_key), AccessFound)
            if answer.key is None or answer.user is None:
                return None
            found = Grantee(user=answer.user, key=answer.key, epoch=answer.epoch)
            self._keys.put(access_key, found)
            self._owners.put(answer.user.user_id, answer.user)
        return found

    async def bucket(self, name: str) -> Bucket | None:
        """The bucket's settings, or None when there is no such bucket."""
        found = self._buckets.get(name)
        if found is None:
            answer = await self._cluster.ask(GetBucket(bucket=name), BucketFound)
            found = answer.bucket
            if found is not None:
                self._buckets.put(name, found)
            if answer.owner is not None:
                self._owners.put(answer.owner.user_id, answer.owner)
        return found

    async def know_users(self, user_ids: Collection[str]) -> None:
        """Afterwards `owner_name` knows these users, as far as they are users."""
        unknown = [user_id for user_id in user_ids if self._owners.get(user_id) is None]
        for first in range(0, len(unknown), USERS_ASKED_MAX):
            asked = unknown[first : first + USERS_ASKED_MAX]
            found = {user.user_id for user in await self.find_users(asked)}
            for user_id in set(asked) - found:  # no user any more: not asked for every time
                self._owners.put(user_id, User(user_id=user_id, display_name=user_id))

    async def find_users(
        self, user_ids: Sequence[str], emails: Sequence[str] = ()
    ) -> Sequence[User]:
        """The users with these ids or addresses as they are now, up to USERS_ASKED_MAX at once;
        `owner_name` knows them afterwards."""
        request = FindUsers(user_ids=tuple(user_ids), emails=tuple(emails))
        answer = await self._cluster.ask(request, UsersFound)
        for user in answer.users:
            self._owners.put(user.user_id, user)
        return answer.users

    def owner_name(self, user_id: str) -> str:
        """The display name of a user that was seen lately, for listings (otherwise the id)."""
        user = self._owners.get(user_id)
        return user.display_name if user is not None else user_id

    def forget_bucket(self, name: str) -> None:
        self._buckets.forget(name)

    def forget(self, access_key: str | None, bucket: str | None) -> None:
        """After STALE_EPOCH: the next look-up asks the leader."""
        if access_key is not None:
            self._keys.forget(access_key)
        if bucket is not None:
            self._buckets.forget(bucket)

    def forget_all(self) -> None:
        self._keys.clear()
        self._buckets.clear()

    def on_notice(self, notice: Notice) -> None:
        """A hint that something changed: saves a round, decides nothing."""
        if notice.access:
            self._keys.clear()
            self._owners.clear()
        for name in notice.buckets:
            self._buckets.forget(name)
