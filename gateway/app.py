"""Composition root of a gateway worker: settings become a Starlette application.

Starlette carries the lifespan; every S3 request goes to the one S3 application by the raw path,
because S3 keys are bytes and Starlette's routes are decoded text.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from astra.bus_rabbitmq import HINTS, NoticeChannel
from astra.net import Dialer
from gateway.access import Access
from gateway.blob_read import BlobReader
from gateway.cluster import Cluster
from gateway.context import GatewayContext
from gateway.s3api.dispatch import S3App
from gateway.settings import GatewaySettings
from gateway.upload import Uploader


def build_context(settings: GatewaySettings) -> GatewayContext:
    """The parts of one gateway worker, not yet connected. In a running event loop."""
    dialer = Dialer(
        secret=settings.cluster_secret,
        role="gateway",
        peer_id=settings.gateway_id,
        tls=settings.peer_tls,
    )
    cluster = Cluster(dialer, settings)
    threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="digest")
    return GatewayContext(
        settings=settings,
        cluster=cluster,
        access=Access(
            cluster, seconds=settings.access_cache_s, entries_max=settings.access_cache_max
        ),
        reader=BlobReader(
            cluster, stall_s=settings.holder_stall_s, timeout_s=settings.holder_timeout_s
        ),
        uploader=Uploader(cluster, settings, threads),
        digest_threads=threads,
    )


class _Application(Starlette):
    """Starlette without its own error pages: the S3 application answers every error itself, and
    each layer between would cost every message of every answer a wrapper."""

    def build_middleware_stack(self) -> ASGIApp:
        return self.router


class _LateApp:
    """The S3 application, which exists only once the lifespan has started."""

    def __init__(self) -> None:
        self.app: S3App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.app is None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            raise RuntimeError("the gateway serves HTTP requests, after its start")
        await self.app(scope, receive, send)


def _notice_channel(settings: GatewaySettings, context: GatewayContext) -> NoticeChannel | None:
    """Hints by way of RabbitMQ, when there is one."""
    if settings.amqp_url is None:
        return None
    return NoticeChannel(
        settings.amqp_url,
        cluster_id=settings.cluster_id,
        peer_id=settings.gateway_id,
        secret=settings.cluster_secret,
        topic=HINTS,
        handler=context.access.on_notice,
    )


def build_app(settings: GatewaySettings) -> Starlette:
    """The ASGI application of one worker process."""
    late = _LateApp()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        context = build_context(settings)
        for address in settings.nodes:
            context.cluster.dialer.control(address).subscribe(
                context.access.on_notice, context.access.forget_all
            )
        channel = _notice_channel(settings, context)
        if channel is not None:
            await channel.start()
        late.app = S3App(context)
        telling = asyncio.create_task(context.reader.running.run(), name="running-reads")
        try:
            yield
        finally:
            telling.cancel()
            if channel is not None:
                await channel.close()
            await context.cluster.dialer.close()
            context.digest_threads.shutdown(wait=False, cancel_futures=True)

    app = _Application(lifespan=lifespan)
    app.router = Router(default=late, lifespan=lifespan)
    return app
