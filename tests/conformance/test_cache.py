"""What every Cache promises (astra.ports.Cache), and how Redis fails."""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from astra.ports import Cache
from node.cache.memory import MemoryCache
from node.cache.redis import RedisCache
from node.clock import SystemClock
from tests.support.handclock import HandClock
from tests.support.ports import free_port
from tests.support.services import Services
from tests.support.wait import wait_until_async


class CacheSuite:
    """Inherit it and give a `cache` fixture: an empty one."""

    async def test_get_what_was_put_is_returned(self, cache: Cache) -> None:
        key, value = b"\x00\xffkey", b"\x00value\xff"
        await cache.put(key, value)
        assert await cache.get(key) == value

    async def test_get_unknown_key_is_none(self, cache: Cache) -> None:
        assert await cache.get(b"never put") is None

    async def test_put_again_replaces(self, cache: Cache) -> None:
        await cache.put(b"k", b"old")
        await cache.put(b"k", b"new")
        assert await cache.get(b"k") == b"new"

    async def test_delete_some_keys_leaves_others(self, cache: Cache) -> None:
        for key in (b"a", b"b", b"c"):
            await cache.put(key, key)
        await cache.delete([b"a", b"c", b"unknown"])
        assert [await cache.get(key) for key in (b"a", b"b", b"c")] == [None, b"b", None]

    async def test_delete_nothing_is_fine(self, cache: Cache) -> None:
        await cache.delete([])
        assert cache.state() == "ok"

    async def test_empty_value_is_a_value(self, cache: Cache) -> None:
        await cache.put(b"k", b"")
        assert await cache.get(b"k") == b""


class TestMemoryCache(CacheSuite):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[Cache]:
        cache = MemoryCache(1 << 20)
        yield cache
        await cache.close()

    async def test_put_beyond_the_bound_drops_the_least_recently_used(self) -> None:
        cache = MemoryCache(3 * (1000 + 201))
        for key in (b"a", b"b", b"c"):
            await cache.put(key, bytes(1000))
        await cache.get(b"a")
        await cache.put(b"d", bytes(1000))
        found = [key for key in (b"a", b"b", b"c", b"d") if await cache.get(key) is not None]
        assert found == [b"a", b"c", b"d"]

    async def test_put_more_than_everything_is_not_kept(self) -> None:
        cache = MemoryCache(10_000)
        await cache.put(b"small", b"x")
        await cache.put(b"big", bytes(20_000))
        assert await cache.get(b"big") is None
        assert await cache.get(b"small") == b"x"

    async def test_bytes_held_after_many_puts_stay_below_the_bound(self) -> None:
        cache = MemoryCache(50_000)
        for number in range(2000):
            await cache.put(b"%d" % (number % 300), bytes(number % 700))
            assert cache.bytes_held() <= 50_000
        await cache.delete([b"%d" % number for number in range(300)])
        assert cache.bytes_held() == 0


@pytest.mark.services
class TestRedisCache(CacheSuite):
    @pytest.fixture
    async def cache(self, services: Services) -> AsyncIterator[Cache]:
        cache = RedisCache(services.redis, SystemClock(), timeout_s=1.0)
        prefix = uuid.uuid4().bytes
        yield _Prefixed(cache, prefix)
        await cache.close()

    async def test_server_stopped_and_started_is_bypassed_and_used_again(
        self, services: Services
    ) -> None:
        clock = HandClock()
        cache = RedisCache(services.redis, clock, timeout_s=1.0)
        key = uuid.uuid4().bytes
        await cache.put(key, b"v")
        services.stop("redis")
        try:
            assert await cache.get(key) is None
            assert cache.state().startswith("bypassed")
        finally:
            services.start("redis")

        async def is_back() -> bool:
            clock.now_ms += 10_000
            await cache.put(key, b"w")
            return await cache.get(key) == b"w"

        await wait_until_async(is_back, 10, "redis is used again")
        assert cache.state() == "ok"
        await cache.close()

    async def test_server_that_is_back_is_found_out_though_nobody_asks(
        self, services: Services
    ) -> None:
        """A follower asks its cache nothing: it must not call it bypassed for ever."""
        cache = RedisCache(services.redis, SystemClock())
        services.pause("redis")
        try:
            assert await cache.get(b"k") is None
            assert cache.state().startswith("bypassed")
        finally:
            services.resume("redis")

        async def is_back() -> bool:
            return cache.state() == "ok"

        await wait_until_async(is_back, 15, "the cache says that redis is back")
        await cache.close()


class _Prefixed:
    """Another test may use the same server."""

    def __init__(self, cache: Cache, prefix: bytes) -> None:
        self._cache = cache
        self._prefix = prefix

    async def get(self, key: bytes) -> bytes | None:
        return await self._cache.get(self._prefix + key)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._cache.put(self._prefix + key, value)

    async def delete(self, keys: Sequence[bytes]) -> None:
        await self._cache.delete([self._prefix + key for key in keys])

    def state(self) -> str:
        return self._cache.state()

    async def close(self) -> None:
        await self._cache.close()


class TestRedisAway:
    @pytest.fixture
    def url(self) -> Callable[[], str]:
        return lambda: f"redis://127.0.0.1:{free_port()}/0"

    async def test_nobody_listens_answers_none_and_never_raises(
        self, url: Callable[[], str]
    ) -> None:
        cache = RedisCache(url(), HandClock())
        assert await cache.get(b"k") is None
        await cache.put(b"k", b"v")
        await cache.delete([b"k"])
        assert cache.state().startswith("bypassed")
        await cache.close()

    async def test_after_a_failure_nothing_is_sent_until_the_pause_is_over(
        self, url: Callable[[], str]
    ) -> None:
        clock = HandClock()
        cache = RedisCache(url(), clock)
        calls = 0

        async def count() -> None:
            nonlocal calls
            calls += 1
            raise ConnectionError

        await cache._guarded(count)
        await cache._guarded(count)
        assert calls == 1
        clock.now_ms += 1000
        await cache._guarded(count)
        assert calls == 2
        clock.now_ms += 1000  # the pause has doubled
        await cache._guarded(count)
        assert calls == 2
        await cache.close()
