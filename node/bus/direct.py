"""Notices over TCP, with nothing else to install.

Two kinds of receivers: whoever holds a Subscribe stream (gateways, tools) gets the hints without
the log entries; the nodes that do not vote get the entries too, pushed one way to their address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from astra.wire import Notice

Notify = Callable[[Notice], None]


class DirectBus:
    """Implements astra.ports.Bus. `receive` is called for each pushed Notice that arrives."""

    def __init__(self, notify: Notify, followers: Sequence[Callable[[Notice], bool]]) -> None:
        """`notify` reaches the subscribers; each of `followers` sends to one learner and says
        whether the notice was taken. Both never block."""
        self._notify = notify
        self._followers = followers
        self._handlers: list[Notify] = []

    def publish(self, notice: Notice) -> None:
        self.publish_hint(notice)
        self.push(notice)

    def publish_hint(self, notice: Notice) -> None:
        """To the subscribers: what changed, without the entries."""
        if notice.access or notice.buckets:
            self._notify(msgspec.structs.replace(notice, entries=()) if notice.entries else notice)

    def push(self, notice: Notice) -> None:
        """To the learners, whole."""
        for send in self._followers:
            send(notice)

    def receive(self, notice: Notice) -> None:
        for handler in self._handlers:
            handler(notice)

    def subscribe(self, handler: Notify) -> None:
        self._handlers.append(handler)

    async def start(self) -> None:
        return None

    def state(self) -> str:
        return "ok"

    async def close(self) -> None:
        self._handlers.clear()
