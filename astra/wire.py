"""Every message that crosses a socket, and the frame that carries it.

Rules of this file: values only. No sockets, no clock, no asyncio. A message that is not
defined here does not exist. Adding a field needs a default; removing or re-typing one needs
a new WIRE_VERSION. Every collection and every byte string that a peer sends is bounded by
the frame limits below, which are checked before anything is decoded.

A frame is a fixed prelude, a msgpack header (one message of the union `Message`) and a raw
payload, which carries blob bytes so that they are never copied through msgpack:

    magic 2s | version B | reserved B | stream I | header_length I | payload_length I
    | header_crc I | payload_crc I

`stream` matches answers to requests on one connection. Both checksums are CRC32C, so that a
flipped bit on a link breaks the connection instead of reaching a disk (FAULTS row 20).
"""

from __future__ import annotations

import enum

import msgspec


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of all messages: immutable, named fields, unknown fields ignored."""


# --- Raft (node/raft speaks only these) ----------------------------------------------------


class EntryKind(enum.IntEnum):
    COMMAND = 0
    NOOP = 1  # appended by each new leader, so that entries of older terms commit (Raft 5.4.2)
    CONFIG = 2  # data is an encoded Membership


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry. `data` is opaque to Raft."""

    index: int
    term: int
    kind: EntryKind
    data: bytes


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who votes, and who is only replicated to. Joint while `voters_outgoing` is not empty."""

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    voters_outgoing: tuple[str, ...] = ()


class RaftBody(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Base of the Raft message bodies. `term` is the sender's term (PreVote: the wished one)."""

    term: int


class RequestVote(RaftBody, frozen=True, kw_only=True, array_like=True, tag="vote"):
    last_index: int
    last_term: int
    pre: bool = False  # PreVote (thesis 9.6): asks without raising anybody's term
    transfer: bool = False  # the leader asked for this election: leases do not refuse it


class VoteReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="voted"):
    granted: bool
    pre: bool = False


class Append(RaftBody, frozen=True, kw_only=True, array_like=True, tag="append"):
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


class AppendReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="appended"):
    """Accepted: `index` is the last index known to match. Rejected: the refused prev_index,
    with a hint where the logs may agree (largest index, and its term, worth trying)."""

    accepted: bool
    index: int
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(RaftBody, frozen=True, kw_only=True, array_like=True, tag="beat"):
    commit: int  # never above what the receiver is known to match
    round: int = 0  # echoed; confirms ReadIndex rounds and leases
    sent_at_ms: int = 0  # leader's monotonic clock, echoed; bounds the lease


class HeartbeatReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="beaten"):
    round: int = 0
    sent_at_ms: int = 0


class InstallSnapshot(RaftBody, frozen=True, kw_only=True, array_like=True, tag="snapshot"):
    """The receiver fetches the content from the sender by `FetchSnapshot` and then acts."""

    index: int
    snapshot_term: int
    membership: Membership


class TimeoutNow(RaftBody, frozen=True, kw_only=True, array_like=True, tag="timeoutnow"):
    """Leadership transfer (thesis 3.10): start an election at once."""


class ReadIndexRequest(RaftBody, frozen=True, kw_only=True, array_like=True, tag="readindex"):
    context: int


class ReadIndexReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="readindexed"):
    context: int
    index: int


RaftMessageBody = (
    RequestVote
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexReply
)


class RaftMessage(Wire, frozen=True, kw_only=True, tag="raft"):
    """At most once, unordered: the core tolerates loss, doubling, delay and reordering."""

    group: int = 0  # one Raft group today; bucket shards later (DESIGN section 9)
    sender: str
    to: str
    body: RaftMessageBody
