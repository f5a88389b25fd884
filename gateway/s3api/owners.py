"""Owners as listings show them: user ids with display names.

Rules: one look-up per page, never one per entry. Those who write into a bucket are, but for the
root user, its owner; so the bucket's owner and who asks are looked up, and of everybody else
what the gateway has seen lately is shown, or the id: a listing never fails for a name.
"""

from __future__ import annotations

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


async def load_owners(request: S3Request) -> Owners:
    """The owners of what is in the request's bucket."""
    bucket = await request.session.allow(request.bucket)
    if bucket.owner_id != request.user_id:
        await request.context.access.know_owner(bucket)
    return Owners(request)
