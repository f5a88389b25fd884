"""`astra key`: users and their access keys."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from astra.cli.cluster import commit, connected
from astra.cli.devdir import new_access_key
from astra.cli.output import Format, print_json, print_table
from astra.commands import DeleteAccessKey, PutUser
from astra.config import Config
from astra.errors import ConfigError
from astra.leader import LeaderClient
from astra.model import AccessKey, User
from astra.wire import AccessPage, FindUsers, ListAccess, UsersFound

_USER_ID: Final = re.compile(r"[A-Za-z0-9._@+=,-]{1,128}\Z")
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9._-]{3,128}\Z")
_SECRET_CHARS_MIN: Final = 8
_NAME_CHARS_MAX: Final = 128
_EMAIL: Final = re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,190}\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What `astra key create` was asked for; empty keys are generated."""

    user_id: str
    display_name: str
    email: str
    access_key: str
    secret_key: str
    is_root: bool


def create_key(config: Config, wanted: NewKey, output: Format) -> int:
    """Creates the user when it is new, and gives it one more key. Prints the secret, once."""
    if not _USER_ID.match(wanted.user_id):
        raise ConfigError(f"user id {wanted.user_id!r}: letters, digits and ._@+=,- only")
    if len(wanted.display_name) > _NAME_CHARS_MAX or not wanted.display_name.isprintable():
        raise ConfigError(f"the display name may have {_NAME_CHARS_MAX} printable characters")
    if wanted.email and not _EMAIL.match(wanted.email):
        raise ConfigError(f"{wanted.email!r} is no e-mail address")
    if wanted.access_key and not _ACCESS_KEY.match(wanted.access_key):
        raise ConfigError("the access key may have letters, digits and ._- only, at least 3")
    if wanted.secret_key and len(wanted.secret_key) < _SECRET_CHARS_MIN:
        raise ConfigError(f"the secret key needs at least {_SECRET_CHARS_MIN} characters")
    now_ms = time.time_ns() // 1_000_000
    user = User(
        user_id=wanted.user_id,
        display_name=wanted.display_name or wanted.user_id,
        email=wanted.email,
        is_root=wanted.is_root,
        created_ms=now_ms,
    )
    key = AccessKey(
        access_key=wanted.access_key or new_access_key(),
        user_id=wanted.user_id,
        secret=wanted.secret_key or secrets.token_urlsafe(30),
        created_ms=now_ms,
    )
    asyncio.run(_create(config, user, key))
    row = {"user_id": user.user_id, "access_key": key.access_key, "secret_key": key.secret}
    if output is Format.JSON:
        print_json(row)
    else:
        print_table(("user_id", "access_key", "secret_key"), [row])
    return 0


async def _create(config: Config, user: User, key: AccessKey) -> None:
    async with connected(config) as leader:
        known = await leader.ask(FindUsers(user_ids=(user.user_id,)), UsersFound)
        if known.users:  # one more key: what is known of the user stays
            user = known.users[0]
        await commit(leader, PutUser(user=user, keys=(key,), replace=True))


def list_keys(config: Config, output: Format) -> int:
    """Users and access keys, never a secret."""

    async def read_all() -> list[dict[str, object]]:
        async with connected(config) as leader:
            return [row async for row in read_keys(leader)]

    rows = asyncio.run(read_all())
    if output is Format.JSON:
        print_json(rows)
    else:
        print_table(("access_key", "user_id", "display_name", "email", "is_root"), rows)
    return 0


async def read_keys(leader: LeaderClient, *, limit: int = 1000) -> AsyncIterator[dict[str, object]]:
    """A row per access key, by name, read from the leader `limit` at a time."""
    after = ""
    while True:
        page = await leader.ask(ListAccess(after=after, limit=limit), AccessPage)
        users = {user.user_id: user for user in page.users}
        for access_key, user_id, _ in page.keys:
            user = users.get(user_id, User(user_id=user_id, display_name=""))
            yield {
                "access_key": access_key,
                "user_id": user_id,
                "display_name": user.display_name,
                "email": user.email,
                "is_root": user.is_root,
            }
        after = page.resume
        if not after:
            return


def delete_key(config: Config, access_key: str) -> int:
    """From its acknowledgement on, every gateway refuses the key."""

    async def send() -> None:
        async with connected(config) as leader:
            await commit(leader, DeleteAccessKey(access_key=access_key))

    asyncio.run(send())
    return 0
