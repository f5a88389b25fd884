"""The same nodes on PostgreSQL, Redis and RabbitMQ: the composition, and a learner on the bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astra.wire import BucketFound, Epochs, GetBucket, ListObjects, Locate, Located, ObjectPage
from tests.support.nodes import NO_EPOCHS, LocalNodes
from tests.support.services import Backends
from tests.support.wait import wait_until_async

pytestmark = pytest.mark.services


@pytest.fixture
async def nodes(tmp_path: Path, backends: Backends) -> AsyncIterator[LocalNodes]:
    nodes = LocalNodes(tmp_path, voters=2, learners=1)
    nodes.use(backends)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        yield nodes


async def test_status_names_the_backends_and_no_problem(nodes: LocalNodes) -> None:
    async def is_well() -> bool:
        status = await nodes.status(await nodes.leader() or "")
        return status is not None and status.problems == () and status.healthy

    await wait_until_async(is_well, 15, "redis and rabbitmq are connected")
    status = await nodes.status("n3")
    assert status is not None
    assert [name for name, _ in status.backends] == ["metadata", "cache", "bus"]
    assert dict(status.backends)["metadata"] == "postgresql"


async def test_writes_are_read_at_once_through_redis(nodes: LocalNodes) -> None:
    found = await nodes.ask(GetBucket(bucket="bk"), BucketFound)
    assert found.bucket is not None
    epochs = Epochs(access=0, bucket=found.bucket.epoch)
    head = Locate(bucket="bk", key=b"k", epochs=epochs)
    for size in range(1, 10):
        await nodes.put_inline("bk", b"k", b"x" * size)
        for _ in range(2):
            assert (await nodes.ask(head, Located)).version.size == size
            page = await nodes.ask(ListObjects(bucket="bk", epochs=epochs), ObjectPage)
            assert [listed.version.size for listed in page.objects] == [size]


async def test_learner_gets_the_log_over_rabbitmq(nodes: LocalNodes) -> None:
    for number in range(20):
        await nodes.put_inline("bk", b"k%d" % number, b"x")
    page = await nodes.ask(ListObjects(bucket="bk", epochs=NO_EPOCHS), ObjectPage)
    assert len(page.objects) == 20

    async def is_level() -> bool:
        leader, learner = await nodes.status(await nodes.leader() or ""), await nodes.status("n3")
        return bool(leader and learner and leader.applied_index == learner.applied_index)

    await wait_until_async(is_level, 15, "the learner has everything")
