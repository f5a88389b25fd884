"""A gateway worker in this process, in front of LocalNodes: HTTP, signatures and all.

Everything is the product's own composition (gateway.http_server); boto3 and raw sockets block, so
tests call them in a thread.
"""

import asyncio
import secrets
from types import TracebackType
from typing import Any

import uvicorn

from astra.commands import PutUser
from astra.model import AccessKey, User
from gateway.context import GatewayContext
from gateway.http_server import server_config
from gateway.settings import GatewaySettings
from gateway.workers import open_listener
from tests.support.clients import Target
from tests.support.nodes import SECRET, LocalNodes
from tests.support.wait import wait_until_async

READY_SECONDS = 10.0


class LocalGateway:
    """Use with `async with`, inside that of the nodes. `changes` are settings."""

    def __init__(self, nodes: LocalNodes, **changes: Any) -> None:
        self._nodes = nodes
        self._listening = open_listener("127.0.0.1", 0)
        port = self._listening.getsockname()[1]
        self._user = User(user_id="root", display_name="root", is_root=True)
        self._key = AccessKey(
            access_key="ASTESTTESTTESTTEST01", user_id="root", secret=secrets.token_urlsafe(30)
        )
        self.target = Target(
            endpoint=f"http://127.0.0.1:{port}",
            access_key=self._key.access_key,
            secret_key=self._key.secret,
        )
        self.settings = GatewaySettings(
            gateway_id="local",
            nodes=tuple(nodes.addresses.values()),
            cluster_secret=SECRET,
            listen_port=port,
            workers=1,
            **changes,
        )
        self._config = server_config(self.settings)
        self._server = uvicorn.Server(self._config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "LocalGateway":
        await self._nodes.commit(PutUser(user=self._user, keys=(self._key,), replace=True))
        # Not `serve`: the signals of the test run are not the gateway's.
        self._task = asyncio.create_task(self._server._serve([self._listening]))
        await wait_until_async(lambda: self._server.started, READY_SECONDS, "the gateway serves")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    @property
    def context(self) -> GatewayContext:
        """The worker's parts, once it serves."""
        app: Any = self._config.app
        context: GatewayContext = app.router.default.app._context
        return context
