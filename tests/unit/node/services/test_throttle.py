"""The pacing of background work, and the fence between making and deleting a copy."""

import pytest

from astra.constants import MIB
from astra.errors import Overloaded
from node.services.fence import CopyFence
from node.services.throttle import BURST_S, TokenBucket


class Time:
    def __init__(self) -> None:
        self.ms = 10_000.0

    def now_ms(self) -> int:
        return int(self.ms)

    async def sleep(self, seconds: float) -> None:
        self.ms += seconds * 1000


async def test_take_many_small_ones_keeps_the_rate() -> None:
    time = Time()
    bucket = TokenBucket(mib_per_s=10, now_ms=time.now_ms, sleep=time.sleep)
    for _ in range(1000):
        await bucket.take(MIB // 10)
    assert (time.ms - 10_000) / 1000 == pytest.approx(10 - BURST_S, rel=0.02)


async def test_take_after_a_rest_is_not_a_flood() -> None:
    time = Time()
    bucket = TokenBucket(mib_per_s=10, now_ms=time.now_ms, sleep=time.sleep)
    await bucket.take(MIB)
    time.ms += 3_600_000
    rested = time.ms
    await bucket.take(20 * MIB)
    assert time.ms - rested == pytest.approx(2000 - BURST_S * 1000, abs=2)


def test_fence_keeps_filling_and_dropping_apart() -> None:
    fence = CopyFence()
    with fence.fill("a"), fence.drop(["a", "b"]) as free:
        assert free == ["b"]
        for name in ("a", "b"):
            with pytest.raises(Overloaded), fence.fill(name):
                pass
        with fence.drop(["b"]) as again:
            assert again == []
        with pytest.raises(Overloaded), fence.fill("b"):
            pass
    with fence.fill("b"), fence.fill("a"):
        assert fence.filling == 2
    assert fence.filling == 0
