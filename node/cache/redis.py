"""The HEAD/LIST cache in Redis, for the leader. The only file that imports redis.

Invariants: never raises; no call takes longer than the timeout; after a failure the backend is
left alone for a while (breaker.py), and then asked until it answers, whether or not anybody wants
an entry: `state` says what is, not what was. Entries expire, so those of old terms do not pile up.
What Redis answers is judged by the caller; here it is only bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from astra.log import get_logger
from astra.ports import Clock
from node.cache.breaker import Breaker

T = TypeVar("T")

TIMEOUT_S: Final = 0.05
VALUE_BYTES_MAX: Final = 1 << 20
_EXPIRY_S: Final = 3600
_CONNECTIONS_MAX: Final = 8
_ASK_AGAIN_S: Final = 1.0

_log = get_logger("cache")


class RedisCache:
    """Implements astra.ports.Cache."""

    def __init__(self, url: str, clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS_MAX,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis(connection_pool=pool)
        self._pool = pool
        self._clock = clock
        self._timeout_s = timeout_s
        self._breaker = Breaker()
        self._is_closed = False
        self._asking: asyncio.Task[None] | None = None  # while it is bypassed

    async def get(self, key: bytes) -> bytes | None:
        async def ask() -> bytes | None:
            value = await self._redis.get(key)
            return value if isinstance(value, bytes) and len(value) <= VALUE_BYTES_MAX else None

        return await self._guarded(ask)

    async def put(self, key: bytes, value: bytes) -> None:
        if len(value) > VALUE_BYTES_MAX:
            return

        async def store() -> None:
            await self._redis.set(key, value, ex=_EXPIRY_S)

        await self._guarded(store)

    async def delete(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return

        async def unlink() -> None:
            await self._redis.unlink(*keys)

        await self._guarded(unlink)

    def state(self) -> str:
        return self._breaker.state()

    async def close(self) -> None:
        self._is_closed = True
        if self._asking is not None:
            self._asking.cancel()
        try:
            async with asyncio.timeout(1.0):
                await self._redis.aclose()
                await self._pool.disconnect()
        except (RedisError, OSError, TimeoutError):
            pass  # it is gone already

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T | None:
        if not self._breaker.allows(self._clock.monotonic_ms()):
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._note_failure(type(error).__name__)  # the text may hold the URL's password
            return None
        except BaseException:
            # Cancelled, or a defect of the client library: a probe must not stay open for ever.
            self._note_failure("interrupted")
            raise
        if self._breaker.succeeded():
            _log.info("redis is back: the cache is used again")
        return result

    def _note_failure(self, reason: str) -> None:
        if self._breaker.failed(self._clock.monotonic_ms(), reason):
            _log.warning("redis fails: the cache is bypassed", reason=reason)
        if not self._is_closed and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask_until_back())

    async def _ask_until_back(self) -> None:
        """A node that leads no more wants no entry, so nobody else would find out."""

        async def ping() -> None:
            await self._redis.ping()

        while self._breaker.is_open:
            await asyncio.sleep(_ASK_AGAIN_S)
            await self._guarded(ping)
