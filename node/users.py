"""Users and their access keys as the command line and gateways ask for them, page by page.

Rules: reads only; each answer is bounded by rows, and every row by what PutUser lets in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from astra.constants import USERS_ASKED_MAX
from astra.errors import RefusalCode, Refused
from astra.model import ACCESS_KEYS, USERS, User
from astra.ports import MetadataView
from astra.wire import AccessPage, FindUsers, ListAccess, UsersFound
from node.lookup import get_many, rows_after

_LIMIT_MAX: Final = 1000
_SAME_EMAIL_MAX: Final = 2  # enough to see that an address is not one user's


async def list_access(view: MetadataView, query: ListAccess) -> AccessPage:
    """Keys behind `after`, by name, and the users whose keys they are."""
    limit = max(1, min(query.limit, _LIMIT_MAX))
    rows = await rows_after(view, ACCESS_KEYS, query.after, limit + 1)
    keys = [key for _, key in rows[:limit]]
    users = await _users_of(view, {key.user_id for key in keys})
    return AccessPage(
        keys=tuple((key.access_key, key.user_id, key.created_ms) for key in keys),
        users=tuple(users),
        resume=keys[-1].access_key if len(rows) > limit else "",
    )


async def find_users(view: MetadataView, query: FindUsers) -> UsersFound:
    """Refused: INVALID_ARGUMENT when too many are asked for at once. Addresses have no index:
    they cost a walk through all users, in pages."""
    if len(query.user_ids) + len(query.emails) > USERS_ASKED_MAX:
        raise Refused(RefusalCode.INVALID_ARGUMENT, f"at most {USERS_ASKED_MAX} users at a time")
    found = {user.user_id: user for user in await _users_of(view, set(query.user_ids))}
    for user in await _users_with(view, set(query.emails) - {""}):
        found[user.user_id] = user
    return UsersFound(users=tuple(found.values()))


async def _users_of(view: MetadataView, user_ids: Collection[str]) -> list[User]:
    found = await get_many(view, USERS, [(user_id,) for user_id in user_ids])
    return [user for user in found.values() if user is not None]


async def _users_with(view: MetadataView, emails: Collection[str]) -> list[User]:
    left = dict.fromkeys(emails, _SAME_EMAIL_MAX)
    found: list[User] = []
    after = ""
    while any(left.values()):
        rows = await rows_after(view, USERS, after, _LIMIT_MAX)
        for _, user in rows:
            if left.get(user.email, 0) > 0:
                left[user.email] -= 1
                found.append(user)
        if len(rows) < _LIMIT_MAX:
            break
        after = rows[-1][0]
    return found
