"""Users and their keys.

Rules of this file: each change moves the access epoch to its log index, so that no gateway can
go on with what it knew before (DESIGN section 4). Secrets stay in documents and never come into
a refusal's detail.
"""

from __future__ import annotations

from msgspec.structs import replace

from astra.commands import DeleteAccessKey, Done, PutUser
from astra.errors import RefusalCode
from astra.model import ACCESS_EPOCH, ACCESS_KEYS, ANONYMOUS_OWNER, USERS, AccessKey
from node.apply.state import Turn, is_text, refuse_unless


async def put_user(turn: Turn, command: PutUser) -> Done:
    """Refused USER_EXISTS, ACCESS_KEY_EXISTS, INVALID_ARGUMENT. A key of this user may get a
    new secret, with `replace`; a key of somebody else is never touched."""
    user = command.user
    refuse_unless(is_text(user.user_id), RefusalCode.INVALID_ARGUMENT, "not a user id")
    for label in (user.display_name, user.email):  # pages of users are bounded by rows
        is_label = not label or is_text(label)
        refuse_unless(is_label, RefusalCode.INVALID_ARGUMENT, "not the name or address of a user")
    is_somebody = user.user_id != ANONYMOUS_OWNER  # who owns what nobody signed for
    refuse_unless(is_somebody, RefusalCode.INVALID_ARGUMENT, f"{user.user_id} is nobody's id")
    existing = await turn.batch.get(USERS, (user.user_id,))
    if existing is not None:
        user = replace(user, created_ms=existing.created_ms)
        is_same = existing == user
        refuse_unless(command.replace or is_same, RefusalCode.USER_EXISTS, user.user_id)
    elif user.created_ms == 0:
        user = replace(user, created_ms=turn.now_ms)
    keys = [await _decide_key(turn, command, key) for key in command.keys]
    await turn.batch.put(USERS, (user.user_id,), user)
    for key in keys:
        await turn.batch.put(ACCESS_KEYS, (key.access_key,), key)
    turn.batch.set_mark(ACCESS_EPOCH, turn.index)
    return Done()


async def _decide_key(turn: Turn, command: PutUser, key: AccessKey) -> AccessKey:
    is_own = key.user_id == command.user.user_id
    is_key = is_text(key.access_key) and bool(key.secret) and is_own
    refuse_unless(is_key, RefusalCode.INVALID_ARGUMENT, "not an access key of this user")
    existing = await turn.batch.get(ACCESS_KEYS, (key.access_key,))
    if existing is None:
        return replace(key, created_ms=turn.now_ms) if key.created_ms == 0 else key
    may_replace = command.replace or existing.secret == key.secret
    is_free = existing.user_id == key.user_id and may_replace
    refuse_unless(is_free, RefusalCode.ACCESS_KEY_EXISTS, key.access_key)
    return replace(key, created_ms=existing.created_ms)


async def delete_access_key(turn: Turn, command: DeleteAccessKey) -> Done:
    row = (command.access_key,)
    existing = await turn.batch.get(ACCESS_KEYS, row)
    refuse_unless(existing is not None, RefusalCode.NO_SUCH_ACCESS_KEY, command.access_key)
    await turn.batch.delete(ACCESS_KEYS, row)
    turn.batch.set_mark(ACCESS_EPOCH, turn.index)
    return Done()
