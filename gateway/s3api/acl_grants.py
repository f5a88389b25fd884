"""ACLs between S3's words and the model: canned names, x-amz-grant-* headers, groups. Pure.

Rules: a request names an ACL by its canned name or by grants, never by both. Who is granted
something is named by id, group or e-mail address; ids and addresses are looked up by the caller
(`acl_request`), groups are resolved here.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from astra.constants import ACL_GRANTS_MAX
from astra.model import ALL_USERS, AUTHENTICATED_USERS, USER_GRANTEE, Acl, Grant
from gateway.s3api.documents import GranteeKind, GrantEntry
from gateway.s3api.errors import S3Error, header_not_implemented

_CANNED_HEADER: Final = "x-amz-acl"
_GRANT_PREFIX: Final = "x-amz-grant-"
_HEADERS: Final = {
    f"{_GRANT_PREFIX}{permission.lower().replace('_', '-')}": permission
    for permission in ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL")
}
_GROUP_URIS: Final = {
    ALL_USERS: "http://acs.amazonaws.com/groups/global/AllUsers",
    AUTHENTICATED_USERS: "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
}
_GROUPS: Final = {uri: group for group, uri in _GROUP_URIS.items()}
_LOG_DELIVERY: Final = "http://acs.amazonaws.com/groups/s3/LogDelivery"
_PUBLIC_READ: Final = Grant(grantee=ALL_USERS, permission="READ")
# What each canned ACL gives beside the owner's rights. Nobody here is Amazon's EC2.
_CANNED: Final[Mapping[str, tuple[Grant, ...]]] = {
    "private": (),
    "public-read": (_PUBLIC_READ,),
    "public-read-write": (_PUBLIC_READ, Grant(grantee=ALL_USERS, permission="WRITE")),
    "authenticated-read": (Grant(grantee=AUTHENTICATED_USERS, permission="READ"),),
    "aws-exec-read": (),
    "bucket-owner-read": (),
    "bucket-owner-full-control": (),
}
_BUCKET_OWNERS: Final = {"bucket-owner-read": "READ", "bucket-owner-full-control": "FULL_CONTROL"}
_KINDS: Final[Mapping[str, GranteeKind]] = {
    "id": "CanonicalUser",
    "uri": "Group",
    "emailaddress": "AmazonCustomerByEmail",
}
_GRANTEE: Final = re.compile(r'\s*([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^",\s]*))\s*')

Wanted = str | tuple[GrantEntry, ...] | None


def parse_acl_headers(headers: Mapping[str, str]) -> Wanted:
    """The name of a canned ACL, grants, or None when the headers ask for neither. Raises
    InvalidRequest for both, InvalidArgument, NotImplemented (log delivery)."""
    canned = headers.get(_CANNED_HEADER)
    named = [name for name in headers if name.startswith(_GRANT_PREFIX)]
    if canned is None:
        return _parse_grants(headers, named) if named else None
    if named:
        message = "Specifying both Canned ACLs and Header Grants is not allowed"
        raise S3Error("InvalidRequest", message)
    if canned == "log-delivery-write":
        raise header_not_implemented(_CANNED_HEADER)
    if canned not in _CANNED:
        raise S3Error("InvalidArgument", ArgumentName=_CANNED_HEADER, ArgumentValue=canned[:64])
    return canned


def _parse_grants(headers: Mapping[str, str], named: Sequence[str]) -> tuple[GrantEntry, ...]:
    grants: list[GrantEntry] = []
    for name in named:
        permission = _HEADERS.get(name)
        if permission is None:
            raise header_not_implemented(name)
        for item in headers[name].split(","):
            grants.append(_parse_grantee(name, item, permission))
            if len(grants) > ACL_GRANTS_MAX:
                raise S3Error("InvalidRequest", "An ACL can have up to 100 grants.")
    return tuple(grants)


def _parse_grantee(header: str, item: str, permission: str) -> GrantEntry:
    found = _GRANTEE.fullmatch(item)
    kind = None if found is None else _KINDS.get(found[1].lower())
    value = "" if found is None else (found[2] or found[3] or "")
    if kind is None or not value:
        raise S3Error("InvalidArgument", ArgumentName=header, ArgumentValue=item[:128])
    return GrantEntry(kind=kind, value=value, permission=permission)


def canned_acl(name: str, *, owner_id: str, bucket_owner_id: str) -> Acl:
    """The grants of a canned ACL on something that `owner_id` owns, in that owner's bucket."""
    others = _CANNED[name]
    if name in _BUCKET_OWNERS and owner_id != bucket_owner_id:
        others = (_user_grant(bucket_owner_id, _BUCKET_OWNERS[name]),)
    return (*others, _user_grant(owner_id, "FULL_CONTROL")) if others else None


def _user_grant(user_id: str, permission: str) -> Grant:
    return Grant(grantee=USER_GRANTEE + user_id, permission=permission)


def group_grantee(uri: str) -> str:
    """The model's name of a group. Raises InvalidArgument, NotImplemented."""
    if uri == _LOG_DELIVERY:
        raise S3Error("NotImplemented", "Grants to the log delivery group are not implemented.")
    group = _GROUPS.get(uri)
    if group is None:
        raise S3Error("InvalidArgument", "Invalid group uri", ArgumentValue=uri[:128])
    return group


def shown_grants(acl: Acl, owner_id: str) -> tuple[Grant, ...]:
    """The grants that clients are shown: without an ACL, the owner's."""
    return (_user_grant(owner_id, "FULL_CONTROL"),) if acl is None else acl


def group_uri(grantee: str) -> str | None:
    """How S3 calls a group; None for a user."""
    return _GROUP_URIS.get(grantee)
