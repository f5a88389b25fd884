"""The asyncio driver over real time, storage in memory and an in-process network."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from astra.errors import (
    DeadlineExceeded,
    FsyncFailed,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Refused,
    Unavailable,
    UnknownFormat,
)
from astra.wire import (
    Append,
    EntryKind,
    Heartbeat,
    InstallSnapshot,
    Membership,
    RaftMessage,
    ReadIndexReply,
    ReadIndexRequest,
    TimeoutNow,
)
from node.applier import Applier
from node.metadata.memory import MemoryMetadataStore
from node.services.witness import Witness
from tests.support.raftcluster import Network, eventually


def commands(peer_state: list[object]) -> list[object]:
    return [getattr(e, "data", None) for e in peer_state if getattr(e, "kind", None) == 0]


async def test_propose_on_three_nodes_returns_the_result_of_apply() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        assert await leader.driver.propose(b"a") == b"A"
        states = [peer.state for peer in network.peers.values()]
        await eventually(lambda: all(s and s[-1].data == b"a" for s in states))


async def test_single_voter_group_works_alone() -> None:
    async with Network(1) as network:
        leader = await network.leader()
        assert await leader.driver.propose(b"a") == b"A"
        assert leader.driver.lease_valid_now()
        assert await leader.driver.read_barrier() == leader.driver.commit_index


async def test_level_with_waits_for_the_note_of_an_apply_and_not_for_ever() -> None:
    async with Network(1) as network:
        leader = await network.leader()
        await leader.driver.level_with(leader.driver.applied_index)
        with pytest.raises(DeadlineExceeded):
            await leader.driver.level_with(99, timeout_s=0.01)
        leader.apply_gate.clear()
        proposing = asyncio.create_task(leader.driver.propose(b"a"))
        levelling = asyncio.create_task(leader.driver.level_with(2))
        await eventually(lambda: leader.driver.commit_index == 2)
        assert not levelling.done()
        leader.apply_gate.set()
        await asyncio.gather(proposing, levelling)
    with pytest.raises(Unavailable):
        await leader.driver.level_with(2)


async def test_propose_on_follower_names_the_leader() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"a")
        follower = network.followers()[0]
        with pytest.raises(NotLeader) as caught:
            await follower.driver.propose(b"b")
        assert caught.value.leader == leader.node_id


async def test_many_proposals_at_once_share_transactions() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        before = leader.storage.append_count
        results = await asyncio.gather(
            *(leader.driver.propose(f"v{number}".encode()) for number in range(200))
        )
        assert results == [f"V{number}".encode() for number in range(200)]
        assert leader.storage.append_count - before < 20


async def test_append_leaves_before_own_write_is_durable() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        leader.storage.hold()
        waiting = asyncio.create_task(leader.driver.propose(b"a"))
        followers = network.followers()
        await eventually(lambda: all(peer.driver.status().last_index > 1 for peer in followers))
        assert not waiting.done()  # committed by the followers, but not durable and applied here
        leader.storage.release()
        assert await waiting == b"A"


async def test_acknowledgement_waits_for_the_followers_write() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"a")
        for peer in network.followers():
            peer.storage.hold()
        waiting = asyncio.create_task(leader.driver.propose(b"b"))
        followers = network.followers()
        await eventually(lambda: all(p.driver.status().last_index == 3 for p in followers))
        await leader.driver.read_barrier()
        assert not waiting.done()
        followers[0].storage.release()
        assert await waiting == b"B"


async def test_idle_leader_sends_a_proposal_within_a_millisecond() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        delays = []
        for number in range(50):
            data = b"%d" % number
            network.sent.clear()
            started = time.perf_counter()
            waiting = asyncio.create_task(leader.driver.propose(data))
            while not any(_carries(message, data) for message in network.sent):
                await asyncio.sleep(0)
            delays.append(time.perf_counter() - started)
            await waiting
        # The best: a busy machine delays many of them, a timer would delay all.
        assert min(delays) < 0.001


def _carries(message: RaftMessage, data: bytes) -> bool:
    body = message.body
    return isinstance(body, Append) and any(entry.data == data for entry in body.entries)


async def test_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() -> None:
    async with Network(3) as network:
        old = await network.leader()
        for number in range(20):
            await old.driver.propose(b"%d" % number)
        network.isolate(old.node_id)
        new = await network.leader(other_than=old.node_id)
        assert await new.driver.propose(b"after") == b"AFTER"
        assert [e.data for e in new.state if e.kind == EntryKind.COMMAND] == [
            *(b"%d" % number for number in range(20)),
            b"after",
        ]


async def test_cut_off_leader_steps_down_and_its_waiting_proposal_is_unknown() -> None:
    async with Network(3) as network:
        old = await network.leader()
        network.isolate(old.node_id)
        with pytest.raises(OutcomeUnknown):
            await old.driver.propose(b"lost")
        assert not old.driver.is_leader
        with pytest.raises(NotLeader):
            await old.driver.propose(b"refused")
        network.cut.clear()
        new = await network.leader()
        await new.driver.propose(b"kept")
        await eventually(lambda: bool(old.state) and old.state[-1].data == b"kept")
        assert b"lost" not in [entry.data for entry in old.state]


async def test_proposal_timeout_is_an_unknown_outcome() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        for peer in network.followers():
            peer.storage.hold()
        with pytest.raises(OutcomeUnknown):
            await leader.driver.propose(b"slow", timeout_s=0.05)


async def test_lease_ends_before_another_leader_and_after_a_pause() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await eventually(leader.driver.lease_valid_now)
        leader.clock.jump_ms += 5000  # stopped and continued: no message was read meanwhile
        assert not leader.driver.lease_valid_now()


async def test_read_barrier_without_lease_shares_one_round() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"a")
        leader.clock.jump_ms += leader.config.lease_ms + 20  # and shorter than CheckQuorum
        assert not leader.driver.lease_valid_now()
        network.sent.clear()
        indexes = await asyncio.gather(*(leader.driver.read_barrier() for _ in range(100)))
        assert set(indexes) == {leader.driver.commit_index}
        rounds = {m.body.round for m in network.sent if isinstance(m.body, Heartbeat)}
        assert 1 <= len(rounds) <= 3


async def test_read_barrier_on_follower_sees_every_acknowledged_write() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        follower = network.followers()[0]
        for number in range(10):
            await leader.driver.propose(b"%d" % number)
            await follower.driver.read_barrier()
            assert follower.state[-1].data == b"%d" % number


async def test_read_barrier_on_cut_off_leader_is_refused() -> None:
    async with Network(3) as network:
        old = await network.leader()
        network.isolate(old.node_id)
        await eventually(lambda: not old.driver.lease_valid_now())
        with pytest.raises((NotLeader, DeadlineExceeded)):
            await old.driver.read_barrier(timeout_s=2)


async def test_answer_to_a_read_of_an_earlier_life_is_not_taken() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        follower = network.followers()[0]
        await follower.driver.read_barrier()
        late = [each for each in network.sent if isinstance(each.body, ReadIndexReply)]
        await follower.restart()
        await leader.driver.propose(b"newer than the answer")
        await eventually(lambda: follower.driver.leader == leader.node_id)
        network.cut.add((follower.node_id, leader.node_id))
        network.sent.clear()
        barrier = asyncio.create_task(follower.driver.read_barrier())
        await eventually(
            lambda: any(isinstance(each.body, ReadIndexRequest) for each in network.sent)
        )
        for message in late:
            follower.driver.receive(message)
        await eventually(lambda: not follower.driver._inbox)
        assert late
        assert not barrier.done()
        network.cut.clear()
        assert await barrier >= leader.driver.commit_index


async def test_reads_that_are_asked_again_leave_nothing_behind() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        follower = network.followers()[0]
        await eventually(lambda: follower.driver.leader == leader.node_id)
        network.cut.add((follower.node_id, leader.node_id))
        barrier = asyncio.create_task(follower.driver.read_barrier())

        def asked() -> int:
            return sum(isinstance(each.body, ReadIndexRequest) for each in network.sent)

        await eventually(lambda: asked() >= 3)
        assert follower.driver._core is not None
        assert len(follower.driver._core._forwarded_reads) == 1
        network.cut.clear()
        await barrier


async def test_read_barrier_waits_for_apply() -> None:
    async with Network(1) as network:
        leader = await network.leader()
        leader.apply_gate.clear()
        proposal = asyncio.create_task(leader.driver.propose(b"a"))
        await eventually(lambda: leader.driver.commit_index == 2)
        barrier = asyncio.create_task(leader.driver.read_barrier())
        await asyncio.sleep(0)
        assert not barrier.done()
        leader.apply_gate.set()
        assert await barrier == 2
        assert await proposal == b"A"


async def test_failed_fsync_stops_the_node_and_is_never_retried() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        leader.storage.fail_next = FsyncFailed("EIO")
        with pytest.raises(OutcomeUnknown):
            await leader.driver.propose(b"a")
        assert [type(error) for error in leader.fatal] == [FsyncFailed]
        count = leader.storage.append_count
        assert not leader.driver.is_leader
        with pytest.raises(Unavailable):
            await leader.driver.propose(b"b")
        new = await network.leader(other_than=leader.node_id)
        await new.driver.propose(b"c")
        assert leader.storage.append_count == count


async def test_failed_apply_stops_the_node() -> None:
    async with Network(1) as network:
        leader = await network.leader()

        async def broken(entries: object) -> list[object]:
            raise RuntimeError("a bug in a command")

        leader.driver._apply = broken
        with pytest.raises(OutcomeUnknown):
            await leader.driver.propose(b"a")
        assert [type(error) for error in leader.fatal] == [RuntimeError]


async def test_entry_of_a_newer_version_stops_each_start_and_is_never_skipped() -> None:
    """FAULTS row 52, with the product's own apply."""
    network = Network(1)
    (peer,) = network.peers.values()
    applier = Applier(MemoryMetadataStore(), Witness())
    peer.driver._apply = applier.apply
    async with network:
        leader = await network.leader()
        with pytest.raises(OutcomeUnknown):
            await leader.driver.propose(b"\x02 from the future")
        for starts in range(1, 4):
            await eventually(partial(peer.has_ended, starts))
            assert [type(error) for error in peer.fatal] == [UnknownFormat] * starts
            assert applier.applied_index == 1, "the entry that began the term"
            await peer.driver.stop(timeout_s=0)
            peer.driver = peer._new_driver()
            peer.driver._apply = applier.apply
            await peer.driver.start(applier.applied_index, network.bootstrap)


async def test_transfer_moves_leadership() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"a")
        target = network.followers()[0]
        await leader.driver.transfer(target.node_id)
        new = await network.leader(other_than=leader.node_id)
        assert new is target
        assert await new.driver.propose(b"b") == b"B"


async def test_transfer_to_a_stranger_is_refused() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        with pytest.raises(Refused):
            await leader.driver.transfer("n9")


async def test_transfer_to_a_dead_node_gives_up_and_goes_on() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        target = network.followers()[0]
        network.isolate(target.node_id)
        with pytest.raises(DeadlineExceeded):
            await leader.driver.transfer(target.node_id)
        assert await leader.driver.propose(b"a") == b"A"


async def test_stop_hands_over_before_it_ends() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"a")
        await leader.driver.stop()
        # No follower waits for an election timeout.
        assert any(isinstance(message.body, TimeoutNow) for message in network.sent)
        new = await network.leader(other_than=leader.node_id)
        assert await new.driver.propose(b"b") == b"B"


async def test_restarted_nodes_keep_all_acknowledged_commands() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        for number in range(10):
            await leader.driver.propose(b"%d" % number)
        for peer in network.peers.values():
            await peer.restart()
        new = await network.leader()
        await new.driver.propose(b"end")
        data = [entry.data for entry in new.state if entry.kind == EntryKind.COMMAND]
        assert data == [*(b"%d" % number for number in range(10)), b"end"]


async def test_restart_with_lost_applied_state_replays_the_log() -> None:
    async with Network(1) as network:
        leader = await network.leader()
        for number in range(5):
            await leader.driver.propose(b"%d" % number)
        await leader.driver.stop()
        del leader.state[2:]
        await leader.restart()
        await network.leader()
        data = [entry.data for entry in leader.state if entry.kind == EntryKind.COMMAND]
        assert data == [b"%d" % number for number in range(5)]


async def test_lagging_follower_is_served_by_snapshot_after_compaction() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        await leader.driver.propose(b"first")
        slow = network.followers()[0]
        network.isolate(slow.node_id)
        for number in range(30):
            await leader.driver.propose(b"%d" % number)
        await leader.driver.compact(leader.driver.applied_index)
        assert leader.driver.status().first_index > slow.driver.status().last_index
        network.cut.clear()
        leader = await network.leader()
        await leader.driver.propose(b"last")
        await eventually(lambda: bool(slow.state) and slow.state[-1].data == b"last")
        assert slow.state == leader.state
        assert slow.driver.status().first_index > 1


async def test_snapshot_that_breaks_off_is_fetched_again() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        slow = network.followers()[0]
        network.isolate(slow.node_id)
        await asyncio.gather(*(leader.driver.propose(b"%d" % number) for number in range(5)))
        await leader.driver.compact(leader.driver.applied_index)
        before = list(slow.state)
        slow.installs_to_break = 2
        network.cut.clear()
        await eventually(lambda: slow.installs_to_break == 0)
        assert slow.state == before
        await leader.driver.propose(b"last")
        await eventually(lambda: slow.state == leader.state)
        assert slow.fatal == []


async def test_proposal_that_a_snapshot_overtakes_is_unknown_at_once() -> None:
    """Committed, not applied here: the state that replaces ours has it, but not its result."""
    async with Network(3) as network:
        old = await network.leader()
        old.apply_gate.clear()
        under_way = asyncio.create_task(old.driver.propose(b"a"))
        await eventually(lambda: old.driver.commit_index == 2)
        overtaken = asyncio.create_task(old.driver.propose(b"b"))
        await eventually(lambda: old.driver.commit_index == 3)
        network.isolate(old.node_id)
        new = await network.leader(other_than=old.node_id)
        await asyncio.gather(*(new.driver.propose(b"%d" % number) for number in range(5)))
        await new.driver.compact(new.driver.applied_index)
        network.cut.clear()
        await eventually(lambda: any(isinstance(m.body, InstallSnapshot) for m in network.sent))
        await new.driver.read_barrier()
        old.apply_gate.set()
        assert await under_way == b"A"
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(2):
                await overtaken
        await eventually(lambda: old.state == new.state)


async def test_membership_change_under_load_then_the_removed_node_is_quiet() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        gone = network.followers()[0]
        rest = tuple(each for each in network.peers if each != gone.node_id)
        writes = [asyncio.create_task(leader.driver.propose(b"%d" % n)) for n in range(20)]
        await leader.driver.propose_membership(Membership(voters=rest))
        await asyncio.gather(*writes)
        assert leader.driver.status().membership.voters == rest
        term = leader.driver.term
        await eventually(lambda: gone.driver.status().role != "follower")  # it hears nobody
        await leader.driver.propose(b"end")
        assert leader.driver.term == term


async def test_membership_change_of_two_voters_is_refused() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        with pytest.raises(Refused):
            await leader.driver.propose_membership(Membership(voters=(leader.node_id,)))


async def test_full_proposal_queue_refuses_instead_of_growing() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        for peer in network.followers():
            peer.storage.hold()
        big = b"x" * (33 * 1024 * 1024)
        first = asyncio.create_task(leader.driver.propose(big, timeout_s=0.2))
        second = asyncio.create_task(leader.driver.propose(big, timeout_s=0.2))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [OutcomeUnknown, Overloaded]


async def test_cancelled_proposal_leaves_nothing_behind() -> None:
    async with Network(3) as network:
        leader = await network.leader()
        waiting = asyncio.create_task(leader.driver.propose(b"a"))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await leader.driver.propose(b"b") == b"B"
        await eventually(lambda: len(leader.driver._waiting) == 0)
