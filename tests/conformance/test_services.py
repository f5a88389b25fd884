"""The servers of scripts/services do what the other suites rely on."""

import os

import aio_pika
import asyncpg
import redis.asyncio

from tests.support.services import Backends, Services
from tests.support.wait import wait_until_async


async def test_backends_of_a_fresh_isolation_answer_and_are_empty(backends: Backends) -> None:
    for dsn in backends.postgres:
        connection = await asyncpg.connect(dsn)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert await connection.fetchval(tables) == 0
        assert await connection.fetchval("SHOW fsync") == "on"
        await connection.close()
    cache = redis.asyncio.from_url(backends.redis)
    assert await cache.dbsize() == 0
    await cache.aclose()
    broker = await aio_pika.connect(backends.amqp)
    channel = await broker.channel(publisher_confirms=True)
    queue = await channel.declare_queue("probe", auto_delete=True)
    await channel.default_exchange.publish(aio_pika.Message(b"hint"), routing_key="probe")
    message = await queue.get()
    assert message.body == b"hint"
    await message.ack()
    await broker.close()


async def test_postgres_of_one_node_restarted_keeps_its_data(
    services: Services, postgres_dsns: list[str]
) -> None:
    connection = await asyncpg.connect(postgres_dsns[1])
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS answer")
    services.restart("postgres-2")

    async def answers() -> bool:
        return connection.is_closed()

    await wait_until_async(answers, 60, "the connection notices the restart")
    again = await asyncpg.connect(postgres_dsns[1])
    assert await again.fetchval("SELECT answer FROM kept") == 7
    await again.close()


def test_services_file_is_private_to_its_owner(services: Services) -> None:
    assert os.stat(services.file).st_mode & 0o777 == 0o600
