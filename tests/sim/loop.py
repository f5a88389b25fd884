"""An asyncio event loop in virtual time, shared by every process of a simulated cluster.

Time stands still while callbacks run and jumps to the next timer when none is left. Each callback
belongs to the `Life` (one run of one process) in whose context it was scheduled: callbacks of a
dead life never run again (kill -9), those of a paused one wait (SIGSTOP), and its timers fire
late. Sockets are the simulated network's (net.py); executor calls run inline, after a delay.

Determinism: ready callbacks run in the order in which they were scheduled, timers by time and
then by that order; tasks hash by number, so that no set depends on memory addresses.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

LIFE: Final[contextvars.ContextVar[Life | None]] = contextvars.ContextVar("life", default=None)

EXECUTOR_DELAY_S: Final = (0.00005, 0.002)


class Life:
    """One run of one process, from start to kill. `number` makes lives of a name differ."""

    __slots__ = (
        "_crowd", "context", "held", "is_alive", "is_paused", "machine", "name", "number", "tasks",
    )  # fmt: skip

    def __init__(self, name: str, number: int, machine: Machine) -> None:
        self.name = name
        self.number = number
        self.machine = machine
        self.is_alive = True
        self.is_paused = False
        self.held: list[SimHandle] = []
        self.tasks: list[SimTask[Any]] = []
        self._crowd = 50
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)

    def keep(self, task: SimTask[Any]) -> None:
        """A killed task must not be finalised, which would run its code; one that is done may."""
        self.tasks.append(task)
        if len(self.tasks) >= self._crowd:
            self.tasks = [each for each in self.tasks if not each.done()]
            self._crowd = 2 * len(self.tasks) + 50


class Machine:
    """What a process keeps when it is killed: its clocks."""

    __slots__ = ("mono_offset_s", "mono_rate", "wall_latest_s", "wall_offset_s")

    def __init__(self, mono_offset_s: float, mono_rate: float, wall_offset_s: float) -> None:
        self.mono_offset_s = mono_offset_s
        self.mono_rate = mono_rate
        self.wall_offset_s = self.wall_latest_s = wall_offset_s

    def set_wall(self, offset_s: float) -> None:
        """`wall_latest_s`: how far ahead it ever was; something may bear that time."""
        self.wall_offset_s = offset_s
        self.wall_latest_s = max(self.wall_latest_s, offset_s)


class SimHandle(asyncio.TimerHandle):
    """A scheduled callback; also what call_soon returns."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "is_input", "when_s")

    def __init__(  # asyncio's own constructor is not called: it asks the loop for its debug mode
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        when_s: float,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when_s = when_s
        self.is_cancelled = False
        self.is_input = False  # bytes that arrive, not a timer

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback = _nothing
        self.args = ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s

    def __repr__(self) -> str:
        return f"SimHandle({self.callback!r} at {self.when_s:.6f})"


def _nothing(*_: object) -> None:
    return None


class SimTask(asyncio.Task[T]):
    """A task whose hash is its number."""

    def __init__(
        self,
        number: int,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        loop: SimLoop,
        context: contextvars.Context | None,
    ) -> None:
        self.number = number
        super().__init__(coro, loop=loop, name="task", context=context)
        self._log_destroy_pending = False  # killed with their life

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Sockets(Protocol):
    """What the loop asks of the simulated network."""

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]: ...

    def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> asyncio.AbstractServer: ...


class SimLoop(asyncio.AbstractEventLoop):
    def __init__(self, rng: random.Random) -> None:
        self.now_s = 0.0
        self.steps = 0
        self.is_stopped = False  # run_until returns at the next moment
        self.sockets: Sockets | None = None
        self.on_error: Callable[[Life | None, str], None] = _raise_error
        self.on_crash: Callable[[Life], None] = _nothing
        self.crash_type: type[BaseException] = KeyboardInterrupt
        self._rng = rng
        self._ready: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._order = 0
        self._task_count = 0

    # --- running -------------------------------------------------------------------------------

    @contextmanager
    def installed(self) -> Generator[None]:
        """Makes this the running loop of the thread."""
        hooks = sys.get_asyncgen_hooks()
        asyncio.events._set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._end_generator)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio.events._set_running_loop(None)

    def _end_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        life = LIFE.get()
        if life is None or life.is_alive:
            self.call_soon(lambda: self.create_task(generator.aclose()))

    def run_until(self, end_s: float, condition: Callable[[], bool] | None = None) -> bool:
        """Runs what is due until `end_s`, until `condition` (asked after each moment of time), or
        until stopped. Whether the condition came true."""
        ready, timers, run = self._ready, self._timers, self._run
        take, pop = ready.popleft, heapq.heappop
        while True:
            while ready:
                run(take())
            if self.is_stopped:
                return False
            if condition is not None and condition():
                return True
            if not timers or timers[0][0] > end_s:
                self.now_s = max(self.now_s, end_s)
                return False
            when_s, _, handle = pop(timers)
            if not handle.is_cancelled:
                self.now_s = when_s
                run(handle)

    def _run(self, handle: SimHandle) -> None:
        if handle.is_cancelled:
            return
        life: Life | None = handle.context.get(LIFE)
        if life is not None:
            if not life.is_alive:
                return
            if life.is_paused:
                life.held.append(handle)
                return
        self.steps += 1
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.on_error(life, f"callback failed: {type(error).__name__}: {error}")

    def resume(self, life: Life) -> None:
        """Ends a pause: everything that came due meanwhile runs now. Loops differ in what they
        look at first, sockets or timers."""
        life.is_paused = False
        if self._rng.random() < 0.7:
            life.held.sort(key=lambda handle: not handle.is_input)
        self._ready.extend(life.held)
        life.held = []

    # --- what asyncio asks -----------------------------------------------------------------------

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]  # arguments are not matched to the callback
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        handle = SimHandle(callback, args, context or contextvars.copy_context(), self.now_s)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(  # type: ignore[override]  # arguments are not matched to the callback
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        when = self.now_s + delay if delay > 0.0 else self.now_s
        handle = SimHandle(callback, args, context or contextvars.copy_context(), when)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_at(  # type: ignore[override]  # arguments are not matched to the callback
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        when = max(when, self.now_s)
        handle = SimHandle(callback, args, context or contextvars.copy_context(), when)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> SimTask[T]:
        self._task_count += 1
        task: SimTask[T] = SimTask(self._task_count, coro, self, context)
        life: Life | None = LIFE.get() if context is None else context.get(LIFE)
        if life is not None:
            life.keep(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = f"{context.get('message')}: {type(error).__name__}: {error}"
        self.on_error(LIFE.get(), text)

    def run_in_executor(  # type: ignore[override]  # typeshed says coroutine; asyncio returns a future
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Inline, after a delay: before it the call has not happened, as in a queue."""
        future: asyncio.Future[T] = self.create_future()
        life = LIFE.get()

        def run() -> None:
            try:
                value = func(*args)
            except self.crash_type:
                if life is not None:
                    self.on_crash(life)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(value)

        self.call_later(self._rng.uniform(*EXECUTOR_DELAY_S), run)
        return future

    async def create_connection(  # type: ignore[override]  # the one form that the product uses
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, *, ssl: None
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        if self.sockets is None:
            raise OSError("no network")
        return await self.sockets.connect(factory, host, port)

    async def create_server(  # type: ignore[override]  # the one form that the product uses
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        host: str,
        port: int,
        *,
        backlog: int,
        ssl: None,
        ssl_handshake_timeout: None,
    ) -> asyncio.AbstractServer:
        if self.sockets is None:
            raise OSError("no network")
        return self.sockets.listen(factory, host, port)


def _raise_error(life: Life | None, text: str) -> None:
    raise AssertionError(text)
