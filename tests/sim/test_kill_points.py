"""The leader, a follower or a gateway dies at one exact point of a write (FAULTS rows 1, 2, 3, 9).

Whatever the point: the client has an answer in time, the write happened exactly once, and all nodes
are equal afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from astra.commands import (
    AnyCommand,
    CompleteUpload,
    DeleteObjects,
    PutObject,
    decode_proposal,
)
from tests.sim.client import Client, Denied
from tests.sim.mutants import broken
from tests.sim.node import SimNode
from tests.sim.stage import Stage, staged

KEY: Final = "key"
INLINE: Final = b"in the command" * 5
CHUNKS: Final = bytes(range(256)) * 3
ANSWER_S: Final = 5.0  # of virtual time, an election included


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A change, and what there must be of KEY after it."""

    command: type[AnyCommand]
    send: Callable[[Client], Awaitable[str]]
    versions: tuple[str, ...]
    body: bytes | None


async def put_inline(client: Client) -> str:
    return (await client.put(KEY, INLINE, {})).etag


async def put_chunks(client: Client) -> str:
    return (await client.put(KEY, CHUNKS, {})).etag


async def delete(client: Client) -> str:
    await client.ask("DELETE", KEY)
    return ""


class Multipart:
    """An upload with its parts in place, to be completed again and again."""

    def __init__(self) -> None:
        self.upload_id = ""
        self.etags: list[str] = []

    async def prepare(self, client: Client) -> None:
        self.upload_id = await client.start_upload(KEY)
        self.etags = [
            await client.put_part(KEY, self.upload_id, number, body)
            for number, body in enumerate((INLINE, CHUNKS), start=1)
        ]

    async def complete(self, client: Client) -> str:
        return await client.complete(KEY, self.upload_id, self.etags)


def writes(stage: Stage) -> dict[str, Write]:
    """With what they need beforehand."""
    upload = Multipart()
    stage.ask("g1", upload.prepare)
    one = ("Version",)
    return {
        "PUT": Write(command=PutObject, send=put_inline, versions=one, body=INLINE),
        "PUT of chunks": Write(command=PutObject, send=put_chunks, versions=one, body=CHUNKS),
        "DELETE": Write(
            command=DeleteObjects, send=delete, versions=("DeleteMarker",), body=None
        ),
        "COMPLETE": Write(
            command=CompleteUpload, send=upload.complete, versions=one, body=INLINE + CHUNKS
        ),
    }  # fmt: skip


WRITES: Final = ("PUT", "PUT of chunks", "DELETE", "COMPLETE")


def check(stage: Stage, write: Write, etag: object) -> None:
    """Done once, as the client was told."""
    stage.heal()
    assert tuple(stage.versions(KEY)) == write.versions
    if write.body is None:
        with pytest.raises(Denied, match="NoSuchKey"):
            stage.ask("g2", lambda client: client.ask("GET", KEY))
    else:
        found = stage.ask("g2", lambda client: client.ask("GET", KEY))
        assert (found.etag, found.body) == (etag, write.body)


# --- the leader ----------------------------------------------------------------------------------


def before_the_proposal(
    stage: Stage, leader: SimNode, is_meant: Callable[[AnyCommand], bool]
) -> None:
    """It has the request, and nothing is in any log."""
    assert leader.process is not None
    seat = leader.process.consensus
    propose = seat.propose

    async def die(data: bytes, timeout_s: float = 10.0) -> object:
        if is_meant(decode_proposal(data).command):
            stage.kill(leader)
            await stage.world.loop.create_future()
        return await propose(data, timeout_s)

    seat.propose = die  # type: ignore[method-assign]


def in_its_own_log_only(
    stage: Stage, leader: SimNode, is_meant: Callable[[AnyCommand], bool]
) -> None:
    """Nobody else has the entry, and nobody may ever see it."""
    others = [node.name for node in stage.followers()]
    assert leader.process is not None
    seat = leader.process.consensus
    propose = seat.propose

    async def alone(data: bytes, timeout_s: float = 10.0) -> object:
        for other in others:
            stage.world.net.cut(leader.name, other)
        return await propose(data, timeout_s)

    def die() -> None:
        stage.kill(leader)
        stage.world.net.heal_all()

    seat.propose = alone  # type: ignore[method-assign]
    stage.on_durable(leader, is_meant, die)


def in_a_followers_log(
    stage: Stage, leader: SimNode, is_meant: Callable[[AnyCommand], bool]
) -> None:
    """A majority has it, and the leader does not know."""
    for follower in stage.followers():
        stage.on_durable(follower, is_meant, lambda: stage.kill(leader))


def before_its_answer(
    stage: Stage, leader: SimNode, is_meant: Callable[[AnyCommand], bool]
) -> None:
    """Committed and applied."""
    stage.on_applied(leader, is_meant, lambda: stage.kill(leader))


POINTS: Final = (
    before_the_proposal, in_its_own_log_only, in_a_followers_log, before_its_answer,
)  # fmt: skip


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_leader_killed_at_a_point_of_a_write_leaves_it_done_exactly_once(
    point: Callable[..., None], what: str
) -> None:
    with staged() as stage:
        write, leader = writes(stage)[what], stage.leader()
        point(stage, leader, lambda command: isinstance(command, write.command))
        answers = stage.start("g1", write.send)
        stage.until(lambda: answers, "an answer", ANSWER_S)
        assert leader.life is None, "the point was met"
        assert isinstance(answers[0], str), answers
        check(stage, write, answers[0])


@pytest.mark.parametrize("what", WRITES)
def test_leader_killed_after_its_answer_keeps_what_it_said(what: str) -> None:
    with staged() as stage:
        write = writes(stage)[what]
        etag = stage.ask("g1", write.send)
        stage.kill(stage.leader())
        if write.body is not None:
            found = stage.ask("g2", lambda client: client.ask("GET", KEY))
            assert (found.etag, found.body) == (etag, write.body)
        check(stage, write, etag)


def test_cluster_that_forgets_request_ids_would_be_found_out() -> None:
    with broken("ignore_request_ids"), pytest.raises(AssertionError, match="Version"):
        test_leader_killed_at_a_point_of_a_write_leaves_it_done_exactly_once(
            in_a_followers_log, "PUT"
        )


# --- a follower ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_durable", [False, True], ids=["before its fsync", "before its answer"])
def test_follower_killed_while_it_writes_its_log_is_not_noticed(is_durable: bool) -> None:
    with staged() as stage:
        write, leader = writes(stage)["PUT"], stage.leader()
        victim = stage.followers()[0]
        fsync = victim.storage.fsync

        async def die() -> None:
            stage.kill(victim)
            await stage.world.loop.create_future()

        if is_durable:
            stage.on_durable(victim, lambda _: True, lambda: stage.kill(victim))
        else:
            victim.storage.fsync = die  # type: ignore[method-assign]
        etag = stage.ask("g1", write.send)
        assert victim.life is None
        assert stage.leader() is leader
        victim.storage.fsync = fsync  # type: ignore[method-assign]
        check(stage, write, etag)


# --- a gateway -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", WRITES)
def test_gateway_killed_before_its_answer_the_client_repeats_at_another(what: str) -> None:
    """The repeated request is a new one: S3's own rules make it the same object again."""
    with staged() as stage:
        write = writes(stage)[what]
        stage.on_applied(
            stage.leader(),
            lambda command: isinstance(command, write.command),
            lambda: stage.world.crash_gateway("g1"),
        )
        answers = stage.start("g1", write.send)
        stage.until(lambda: "g1" not in stage.world.gateways, "the point was met")
        assert not answers
        assert tuple(stage.versions(KEY)) == write.versions, "it is done, though nobody was told"
        etag = stage.ask("g2", write.send)
        # Complete answers its first result again; PUT and DELETE are done again, as S3 has it.
        again = 1 if what == "COMPLETE" else 2
        check(stage, replace(write, versions=write.versions * again), etag)


def test_gateway_killed_before_its_answer_the_repeated_creation_is_refused() -> None:
    """If-None-Match cannot know that the object is the client's own: AWS answers 412 too."""
    with staged() as stage:
        stage.on_applied(
            stage.leader(),
            lambda command: isinstance(command, PutObject),
            lambda: stage.world.crash_gateway("g1"),
        )
        create = {"if-none-match": "*"}
        stage.start("g1", lambda client: client.put(KEY, INLINE, create))
        stage.until(lambda: "g1" not in stage.world.gateways, "the point was met")
        with pytest.raises(Denied, match="PreconditionFailed"):
            stage.ask("g2", lambda client: client.put(KEY, INLINE, create))
        assert stage.ask("g2", lambda client: client.ask("GET", KEY)).body == INLINE
