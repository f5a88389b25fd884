"""The census of a cluster: what the metadata says of blobs, against what is on the disks.

Rules: asks over the wire only, page by page; judges in `compare`, which is pure. Ids are what is
kept in memory (some 100 bytes for each copy), so that one pass over each side is enough.

The cluster goes on meanwhile, so the two sides are not of one moment: when something looks wrong,
everything is asked a second time, and only what is found twice is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from astra.constants import BLOB_ORPHAN_AGE_MS_MIN, REPLICAS
from astra.errors import AstraError, WireError
from astra.leader import LeaderClient
from astra.model import Blob, Garbage
from astra.net import Dialer
from astra.wire import (
    BlobPage,
    DroppedPage,
    GarbagePage,
    HeldPage,
    ListBlobs,
    ListDropped,
    ListGarbage,
    ListHeld,
)

_PAGE: Final = 500
_PAGE_TIMEOUT_S: Final = 600.0


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What is on one node."""

    blob_ids: frozenset[str]
    damaged: frozenset[str]


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata says. `dropped`: by node, copies that it still has to delete."""

    blobs: Mapping[str, Blob]
    garbage: Mapping[str, Garbage]
    dropped: Mapping[str, frozenset[str]]


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`what`: missing, damaged, stray (a copy that counts no more), orphan (unknown for longer than
    a blob may be committed), under (fewer than REPLICAS good copies), over, lost (no good copy)."""

    what: str
    blob_id: str
    node_id: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    blobs: int
    copies: int
    garbage: int  # blobs that wait for their deletion
    dropped: int  # copies that do
    young: int  # files that nothing names yet: uploads that are under way, or were given up
    unreachable: tuple[tuple[str, str], ...]  # nodes that did not answer, and why
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not self.findings and not self.unreachable

    def of(self, what: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.what == what)


def compare(
    books: Books,
    disks: Mapping[str, Disk],
    *,
    now_ms: int,
    unreachable: Sequence[tuple[str, str]] = (),
) -> Report:
    """`disks` of the nodes that answered. Copies on the others are taken as good."""
    findings: list[Finding] = []
    wanted = min(REPLICAS, len(disks) + len(unreachable))
    for blob_id, blob in books.blobs.items():
        findings += _judge_blob(blob_id, blob, disks, wanted)
    young = 0
    for node_id, disk in disks.items():
        for blob_id in disk.blob_ids:
            what = _judge_file(books, blob_id, node_id, now_ms)
            young += what == "young"
            if what in ("stray", "orphan"):
                findings.append(Finding(what=what, blob_id=blob_id, node_id=node_id))
    return Report(
        blobs=len(books.blobs),
        copies=sum(len(disk.blob_ids) for disk in disks.values()),
        garbage=len(books.garbage),
        dropped=sum(map(len, books.dropped.values())),
        young=young,
        unreachable=tuple(unreachable),
        findings=tuple(sorted(findings)),
    )


def _judge_blob(blob_id: str, blob: Blob, disks: Mapping[str, Disk], wanted: int) -> list[Finding]:
    findings: list[Finding] = []
    for holder in blob.holders:
        disk = disks.get(holder)
        if disk is None:
            continue
        if blob_id not in disk.blob_ids:
            findings.append(Finding(what="missing", blob_id=blob_id, node_id=holder))
        elif blob_id in disk.damaged:
            findings.append(Finding(what="damaged", blob_id=blob_id, node_id=holder))
    good = len(blob.holders) - len(findings)
    if good == 0:
        findings.append(Finding(what="lost", blob_id=blob_id))
    elif good < wanted:
        findings.append(Finding(what="under", blob_id=blob_id))
    elif len(blob.holders) > REPLICAS:
        findings.append(Finding(what="over", blob_id=blob_id))
    return findings


def _judge_file(books: Books, blob_id: str, node_id: str, now_ms: int) -> str:
    blob = books.blobs.get(blob_id)
    if blob is not None:
        if node_id in blob.holders:
            return "held"
        return "dropped" if blob_id in books.dropped.get(node_id, frozenset()) else "stray"
    if blob_id in books.garbage or blob_id in books.dropped.get(node_id, frozenset()):
        return "garbage"
    is_old = now_ms - int(blob_id[:12], 16) >= BLOB_ORPHAN_AGE_MS_MIN
    return "orphan" if is_old else "young"


# --- asking ----------------------------------------------------------------------------------


async def take_census(
    dialer: Dialer,
    leader: LeaderClient,
    addresses: Mapping[str, str],
    *,
    now_ms: int,
    verify: bool = False,
) -> Report:
    """`addresses` of all nodes by id. `verify`: every byte is read, at the rate of repairs. Raises
    Unavailable when no leader answers."""
    report = await _take_once(dialer, leader, addresses, now_ms=now_ms, verify=verify)
    if not report.findings:
        return report
    again = await _take_once(dialer, leader, addresses, now_ms=now_ms, verify=verify)
    twice = tuple(finding for finding in again.findings if finding in set(report.findings))
    return msgspec.structs.replace(again, findings=twice)


async def _take_once(
    dialer: Dialer,
    leader: LeaderClient,
    addresses: Mapping[str, str],
    *,
    now_ms: int,
    verify: bool,
) -> Report:
    async def ask(address: str) -> Disk | AstraError:
        try:
            return await read_disk(dialer, address, verify=verify)
        except AstraError as error:
            return error

    found = await asyncio.gather(*(ask(address) for address in addresses.values()))
    answers = dict(zip(addresses, found, strict=True))
    disks = {name: answer for name, answer in answers.items() if isinstance(answer, Disk)}
    silent = [(name, str(each)) for name, each in answers.items() if isinstance(each, AstraError)]
    books = await read_books(leader, list(addresses))
    return compare(books, disks, now_ms=now_ms, unreachable=silent)


async def read_disk(dialer: Dialer, address: str, *, verify: bool = False) -> Disk:
    blob_ids: set[str] = set()
    damaged: set[str] = set()
    after: str | None = None
    while True:
        request = ListHeld(after=after, limit=_PAGE, verify=verify)
        page = await dialer.control(address).call(request, timeout_s=_PAGE_TIMEOUT_S)
        if not isinstance(page, HeldPage):
            raise WireError("a node answered something else than what it holds")
        blob_ids.update(page.blob_ids)
        damaged.update(page.damaged)
        after = page.resume
        if after is None:
            return Disk(blob_ids=frozenset(blob_ids), damaged=frozenset(damaged))


async def read_books(leader: LeaderClient, node_ids: Sequence[str]) -> Books:
    blobs: dict[str, Blob] = {}
    after: str | None = ""
    while after is not None:
        page = await leader.ask(ListBlobs(after=after, limit=_PAGE), BlobPage)
        blobs.update(page.blobs)
        after = page.resume
    garbage: dict[str, Garbage] = {}
    after = ""
    while after is not None:
        rubbish = await leader.ask(ListGarbage(after=after, limit=_PAGE), GarbagePage)
        garbage.update(rubbish.blobs)
        after = rubbish.resume
    dropped = {node_id: await _read_dropped(leader, node_id) for node_id in node_ids}
    return Books(blobs=blobs, garbage=garbage, dropped=dropped)


async def _read_dropped(leader: LeaderClient, node_id: str) -> frozenset[str]:
    found: set[str] = set()
    after: str | None = ""
    while after is not None:
        request = ListDropped(node_id=node_id, after=after, limit=_PAGE)
        page = await leader.ask(request, DroppedPage)
        found.update(page.blob_ids)
        after = page.resume
    return frozenset(found)
