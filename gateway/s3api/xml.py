"""Reading the XML bodies of requests. The only file that imports lxml.

Rules: no DTD, no entities, no network, no recovery; size and number of tags are capped before
the parser sees a byte, depth by the parser and by the typed readers, which walk fixed shapes and
accept no element they do not know. S3's namespace and none are both accepted, nothing else is.
Invariant: whatever the bytes, a reader returns a value or raises S3Error, mostly MalformedXML.
An element that would change the meaning is never skipped (a condition on a delete, a checksum).
Source: AWS request syntax of each operation; SECURITY S36.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from lxml import etree

from astra.constants import ACL_GRANTS_MAX, DELETE_KEYS_MAX, PART_NUMBER_MAX, XML_BODY_BYTES_MAX
from gateway.s3api.dates import parse_http_date, parse_iso8601_ms
from gateway.s3api.documents import AccessControlPolicy, Checksum, GrantEntry, Owner
from gateway.s3api.errors import S3Error
from gateway.s3api.names import unquote_etag
from gateway.s3api.tags import Tags, check_bucket_tags, check_object_tags

# 10,000 parts of number, ETag and up to five checksums, opening and closing tags.
_TAGS_MAX: Final = 200_000
_NAMESPACE: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"
# A declaration (DOCTYPE, ENTITY ...): everything after `<!` that is no comment and no CDATA.
_DECLARATION: Final = re.compile(rb"<!(?!--|\[CDATA\[)")
_CHECKSUMS: Final = frozenset({"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"})
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_SPACES: Final = " \t\r\n"


def _malformed() -> S3Error:
    return S3Error("MalformedXML")


# --- the parser ------------------------------------------------------------------------------


def _new_parser() -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )


def _parse(body: bytes, root_name: str) -> etree._Element:
    """The root element, after every cap; MalformedXML otherwise."""
    if len(body) > XML_BODY_BYTES_MAX:
        raise S3Error("MaxMessageLengthExceeded")
    if body.count(b"<") > _TAGS_MAX or b"\x00" in body or _DECLARATION.search(body):
        raise _malformed()
    try:
        root = etree.fromstring(body, _new_parser())
    except etree.XMLSyntaxError as error:
        raise _malformed() from error
    if _name(root) != root_name:
        raise _malformed()
    return root


def _name(element: etree._Element) -> str:
    """The local name of an element in S3's namespace or in none."""
    tag = element.tag
    if not isinstance(tag, str):  # an entity reference
        raise _malformed()
    name = tag.removeprefix(_NAMESPACE)
    if name.startswith("{"):
        raise _malformed()
    return name


def _children(element: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    """Names and elements inside; text between them may only be white space."""
    if (element.text or "").strip(_SPACES):
        raise _malformed()
    for child in element:
        if (child.tail or "").strip(_SPACES):
            raise _malformed()
        yield _name(child), child


def _text(element: etree._Element) -> str:
    if len(element):
        raise _malformed()
    return element.text or ""


def _fields(element: etree._Element, allowed: frozenset[str]) -> dict[str, str]:
    """The texts inside, each at most once and each with an allowed name."""
    fields: dict[str, str] = {}
    for name, child in _children(element):
        if name not in allowed or name in fields:
            raise _malformed()
        fields[name] = _text(child)
    return fields


def _number(text: str) -> int:
    stripped = text.strip(_SPACES)
    if not _NUMBER.fullmatch(stripped):
        raise _malformed()
    return int(stripped)


def _flag(text: str) -> bool:
    value = text.strip(_SPACES).lower()
    if value not in ("true", "false"):
        raise _malformed()
    return value == "true"


# --- DeleteObjects ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectToDelete:
    """One key. Its length is not checked: a bad key fails alone, not the whole request.

    `etag` is bare or `*`; it, `modified_seconds` and `size` are conditions on the version.
    """

    key: str
    version_id: str | None = None
    etag: str | None = None
    modified_seconds: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRequest:
    objects: tuple[ObjectToDelete, ...]
    quiet: bool


_OBJECT_FIELDS: Final = frozenset({"Key", "VersionId", "ETag", "LastModifiedTime", "Size"})


def _object_to_delete(element: etree._Element) -> ObjectToDelete:
    fields = _fields(element, _OBJECT_FIELDS)
    key, etag, size = fields.get("Key", ""), fields.get("ETag"), fields.get("Size")
    if not key:
        raise _malformed()
    return ObjectToDelete(
        key=key,
        version_id=fields.get("VersionId") or None,
        etag=None if etag is None else unquote_etag(etag),
        modified_seconds=_seconds(fields.get("LastModifiedTime")),
        size=None if size is None else _number(size),
    )


def _seconds(text: str | None) -> int | None:
    """A time that SDKs write in either form."""
    if text is None:
        return None
    seconds = parse_http_date(text)
    if seconds is not None:
        return seconds
    millis = parse_iso8601_ms(text)
    if millis is None:
        raise _malformed()
    return millis // 1000


def parse_delete(body: bytes) -> DeleteRequest:
    """1..1000 keys in the order given, duplicates kept."""
    objects: list[ObjectToDelete] = []
    quiet = False
    for name, child in _children(_parse(body, "Delete")):
        if name == "Object" and len(objects) < DELETE_KEYS_MAX:
            objects.append(_object_to_delete(child))
        elif name == "Quiet":
            quiet = _flag(_text(child))
        else:
            raise _malformed()
    if not objects:
        raise _malformed()
    return DeleteRequest(objects=tuple(objects), quiet=quiet)


# --- CompleteMultipartUpload -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedPart:
    """`etag` is bare; whether it and the checksums are right is for the handler to find out."""

    part_number: int
    etag: str
    checksums: tuple[Checksum, ...] = ()


_PART_FIELDS: Final = frozenset(
    {"PartNumber", "ETag", *(f"Checksum{algorithm}" for algorithm in _CHECKSUMS)}
)


def _completed_part(element: etree._Element) -> CompletedPart:
    fields = _fields(element, _PART_FIELDS)
    number = _number(fields.pop("PartNumber", ""))
    etag = unquote_etag(fields.pop("ETag", ""))
    if not etag:
        raise _malformed()
    if not 1 <= number <= PART_NUMBER_MAX:
        message = f"PartNumber must be an integer between 1 and {PART_NUMBER_MAX}"
        raise S3Error("InvalidArgument", message, ArgumentName="PartNumber")
    checksums = (
        Checksum(algorithm=name.removeprefix("Checksum"), value=value)
        for name, value in fields.items()
        if value
    )
    return CompletedPart(part_number=number, etag=etag, checksums=tuple(checksums))


def parse_complete_multipart(body: bytes) -> tuple[CompletedPart, ...]:
    """1..10000 parts, numbers strictly ascending; InvalidPartOrder when they are not."""
    parts: list[CompletedPart] = []
    for name, child in _children(_parse(body, "CompleteMultipartUpload")):
        if name != "Part" or len(parts) >= PART_NUMBER_MAX:
            raise _malformed()
        part = _completed_part(child)
        if parts and part.part_number <= parts[-1].part_number:
            raise S3Error("InvalidPartOrder")
        parts.append(part)
    if not parts:
        raise _malformed()
    return tuple(parts)


# --- settings --------------------------------------------------------------------------------

VersioningStatus = Literal["Enabled", "Suspended"]


def parse_versioning(body: bytes) -> VersioningStatus:
    """The status asked for. MFA delete, when it is to be enabled, is NotImplemented."""
    fields = _fields(_parse(body, "VersioningConfiguration"), frozenset({"Status", "MfaDelete"}))
    if fields.get("MfaDelete", "Disabled") != "Disabled":
        raise S3Error("NotImplemented", "MfaDelete is not implemented.")
    status = fields.get("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status == "Enabled":
        return "Enabled"
    if status == "Suspended":
        return "Suspended"
    raise _malformed()


def _tag(element: etree._Element) -> tuple[str, str]:
    fields = _fields(element, frozenset({"Key", "Value"}))
    if "Key" not in fields or "Value" not in fields:
        raise _malformed()
    return fields["Key"], fields["Value"]


def _tag_list(element: etree._Element) -> list[tuple[str, str]]:
    tags: list[tuple[str, str]] = []
    for name, child in _children(element):
        if name != "Tag":
            raise _malformed()
        tags.append(_tag(child))
    return tags


def _tagging(body: bytes, check: Callable[[list[tuple[str, str]]], Tags]) -> Tags:
    sets = list(_children(_parse(body, "Tagging")))
    if len(sets) != 1 or sets[0][0] != "TagSet":
        raise _malformed()
    return check(_tag_list(sets[0][1]))


def parse_object_tagging(body: bytes) -> Tags:
    """At most 10 tags; InvalidTag for one that S3 does not allow."""
    return _tagging(body, check_object_tags)


def parse_bucket_tagging(body: bytes) -> Tags:
    """At most 50 tags; InvalidTag for one that S3 does not allow."""
    return _tagging(body, check_bucket_tags)


# --- ACLs ------------------------------------------------------------------------------------

_PERMISSIONS: Final = frozenset({"READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"})
_GRANTEE_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
_GRANTEE_FIELDS: Final = frozenset({"ID", "DisplayName", "URI", "EmailAddress"})


def parse_access_control_policy(body: bytes) -> AccessControlPolicy:
    """At most 100 grants, none of them too. MalformedACLError for what is no such document;
    whether the users and groups exist is for the handler to find out."""
    try:
        return _access_control_policy(_parse(body, "AccessControlPolicy"))
    except S3Error as error:
        if error.code == "MalformedXML":
            raise S3Error("MalformedACLError") from error
        raise


def _access_control_policy(root: etree._Element) -> AccessControlPolicy:
    owner: Owner | None = None
    grants: list[GrantEntry] | None = None
    for name, child in _children(root):
        if name == "Owner" and owner is None:
            fields = _fields(child, frozenset({"ID", "DisplayName"}))
            owner_id = fields.get("ID", "").strip(_SPACES)
            owner = Owner(owner_id=owner_id, display_name=fields.get("DisplayName", ""))
        elif name == "AccessControlList" and grants is None:
            grants = _grants(child)
        else:
            raise _malformed()
    if owner is None or not owner.owner_id or grants is None:
        raise _malformed()
    return AccessControlPolicy(owner=owner, grants=grants)


def _grants(element: etree._Element) -> list[GrantEntry]:
    grants: list[GrantEntry] = []
    for name, child in _children(element):
        if name != "Grant" or len(grants) >= ACL_GRANTS_MAX:
            raise _malformed()
        grants.append(_grant(child))
    return grants


def _grant(element: etree._Element) -> GrantEntry:
    inside = list(_children(element))
    parts = dict(inside)
    if len(inside) != 2 or parts.keys() != {"Grantee", "Permission"}:
        raise _malformed()
    permission = _text(parts["Permission"]).strip(_SPACES)
    if permission not in _PERMISSIONS:
        raise _malformed()
    grantee = parts["Grantee"]
    fields = _fields(grantee, _GRANTEE_FIELDS)
    match grantee.get(_GRANTEE_TYPE):
        case "CanonicalUser" if value := fields.get("ID", "").strip(_SPACES):
            return GrantEntry(kind="CanonicalUser", value=value, permission=permission)
        case "Group" if value := fields.get("URI", "").strip(_SPACES):
            return GrantEntry(kind="Group", value=value, permission=permission)
        case "AmazonCustomerByEmail" if value := fields.get("EmailAddress", "").strip(_SPACES):
            return GrantEntry(kind="AmazonCustomerByEmail", value=value, permission=permission)
    raise _malformed()


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketConfiguration:
    """`location` is None when the body names no region."""

    location: str | None = None
    tags: Tags = ()


def parse_create_bucket(body: bytes) -> BucketConfiguration:
    """The CreateBucketConfiguration, an empty body being the default one.

    Location and Bucket belong to directory buckets: NotImplemented.
    """
    if not body.strip():
        return BucketConfiguration()
    location: str | None = None
    tags: Tags = ()
    for name, child in _children(_parse(body, "CreateBucketConfiguration")):
        if name == "LocationConstraint":
            location = _text(child).strip(_SPACES) or None
        elif name == "Tags":
            tags = check_bucket_tags(_tag_list(child))
        elif name in ("Location", "Bucket"):
            raise S3Error("NotImplemented", "Directory buckets are not implemented.")
        else:
            raise _malformed()
    return BucketConfiguration(location=location, tags=tags)
