"""Every process is restarted in order, one after the other, under load (FAULTS rows 57, 71).

What an operator does to upgrade: SIGTERM, start again, wait until all is well, the next one. A node
hands leadership over and ends with status 0; a client as users have it sees no failure.
"""

import threading
import time
from collections.abc import Iterator

import pytest
from botocore.config import Config

from astra.wire import NodeStatus
from tests.chaos.rig import Rig
from tests.support.buckets import new_bucket, read
from tests.support.clients import boto3_client
from tests.support.files import MIB
from tests.support.load import Load
from tests.support.rawhttp import connection, sign
from tests.support.wait import wait_until

pytestmark = pytest.mark.cluster

WELL_SECONDS = 90.0  # what a walk over all blobs has found is said until the next, 60 s later
GAP_SECONDS_MAX = 3.0
WRITES_BETWEEN = 15
BODY = bytes(range(256)) * (12 * 1024)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rolling"), seed=1, workers=1)
    try:
        rig.start()
        yield rig
    except BaseException:
        print(rig.tails())
        raise
    finally:
        rig.close()


def all_is_well(rig: Rig) -> bool:
    """As `astra status` says it."""
    return all(
        isinstance(status, NodeStatus)
        and status.healthy
        and status.role != "learner"  # beside the group: the next one cannot be missed yet
        and not status.problems
        for status in rig.statuses().values()
    )


def test_nodes_restarted_one_by_one_under_load_lose_no_request(rig: Rig) -> None:
    patient = Config(retries={"mode": "standard"}, read_timeout=30, max_pool_connections=20)
    load = Load(rig.target, writers=3, pause_s=0.01, config=patient)
    leader = rig.leader()
    order = [name for name in rig.names if name != leader] + [leader]
    with load.running():
        since = time.monotonic()
        for name in order:
            began = time.monotonic()
            assert rig.nodes[name].stop() == 0, f"{name} did not end in order"
            stopped_s = time.monotonic() - began
            load.wait_for_acks(WRITES_BETWEEN)
            rig.nodes[name].start()
            wait_until(lambda: all_is_well(rig), WELL_SECONDS, f"all is well after {name}")
            print(f"{name} stopped in {stopped_s:.1f} s, back after {time.monotonic() - began:.1f}")
        load.wait_for_acks(WRITES_BETWEEN)
    print(f"longest gap {load.longest_gap(since):.2f} s; {load.summary()}")
    assert not load.failures, load.summary()
    assert not rig.surprises()
    assert load.verify(rig.target) > 0
    assert load.longest_gap(since) <= GAP_SECONDS_MAX


def test_gateway_that_is_stopped_finishes_what_is_under_way(rig: Rig) -> None:
    s3 = boto3_client(rig.target)
    bucket = new_bucket(s3, "rolling")
    head = sign(rig.target, "PUT", f"/{bucket}/k", {"Content-Length": str(len(BODY))})
    statuses: list[int] = []
    stopping = threading.Thread(target=lambda: statuses.append(rig.gateway.stop()))
    with connection(rig.target) as slow:
        slow.send(head.encode() + BODY[:MIB])
        stopping.start()
        wait_until(lambda: is_refused(rig), WELL_SECONDS, "nobody new is let in")
        slow.send(BODY[MIB:])
        assert slow.answer().status == 200
    stopping.join()
    assert statuses == [0]
    rig.gateway.start()
    wait_until(lambda: not is_refused(rig), WELL_SECONDS, "the gateway serves again")
    assert read(s3, bucket, "k") == BODY
    s3.close()


def is_refused(rig: Rig) -> bool:
    try:
        with connection(rig.target):
            return False
    except ConnectionRefusedError:
        return True
