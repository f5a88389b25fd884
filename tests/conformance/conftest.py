"""Fixtures shared by the conformance suites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from astra.ports import MetadataStore
from node.metadata.memory import MemoryMetadataStore
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.databases import fresh_database
from tests.support.metadata import Opener
from tests.support.services import Services

BACKENDS = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.services)]


@pytest.fixture(params=BACKENDS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens new, empty stores of one backend, and closes them at the end."""
    opened: list[MetadataStore] = []

    async with AsyncExitStack() as databases:

        async def open_store() -> MetadataStore:
            store: MetadataStore
            if request.param == "memory":
                store = MemoryMetadataStore()
            elif request.param == "sqlite":
                store = await SqliteMetadataStore.open(tmp_path / f"{len(opened)}.db")
            else:
                services: Services = request.getfixturevalue("services")
                dsn = await databases.enter_async_context(fresh_database(services.postgres[0]))
                store = await PostgresMetadataStore.open(dsn)
            opened.append(store)
            return store

        yield open_store
        for store in opened:
            await store.close()
