"""Owners as listings show them: user ids with display names.

Rules: one look-up per page, never one per entry, and none when the names are known already. Of
who is no user any more the id is shown: a listing never fails for a name.
"""

from __future__ import annotations

from collections.abc import Iterable

from astra.model import ANONYMOUS_OWNER
from gateway.s3api.documents import Owner
from gateway.s3api.request import S3Request


class Owners:
    """Ids to owners, for one answer. Make it with `load_owners`."""

    __slots__ = ("_known", "_request")

    def __init__(self, request: S3Request) -> None:
        user = request.session.grantee.user
        self._request = request
        self._known = {user.user_id: Owner(owner_id=user.user_id, display_name=user.display_name)}

    def get(self, user_id: str) -> Owner:
        owner = self._known.get(user_id)
        if owner is None:
            name = self._request.context.access.owner_name(user_id)
            owner = self._known[user_id] = Owner(owner_id=user_id, display_name=name)
        return owner


async def load_owners(request: S3Request, user_ids: Iterable[str]) -> Owners:
    """All of these users by their names, as far as there are such users."""
    await request.context.access.know_users(set(user_ids) - {request.user_id, ANONYMOUS_OWNER})
    return Owners(request)
