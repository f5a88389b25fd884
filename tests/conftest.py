"""Fixtures for servers and clusters, marks by fixture, and cluster logs on failures.

A test that asks for a real server or cluster is marked `services` or `cluster` by the fixture
it uses, so that a forgotten mark cannot put it into the fast, parallel run.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from mypy_boto3_s3 import S3Client

from tests.support.clients import Clients, boto3_client
from tests.support.cluster import Backend, Cluster
from tests.support.services import (
    POSTGRES_NAMES,
    Backends,
    Services,
    acquire_services,
    stop_services_if_last,
)

# No time limit per example: a busy machine is not a counter-example.
settings.register_profile(
    "astra", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("astra")

TESTS = Path(__file__).parent
CLUSTER_FIXTURES = {"embedded_cluster", "services_cluster", "cluster", "start_cluster"}
SERVICES_FIXTURES = {"services", "backends", "services_cluster", "postgres_dsn", "postgres_dsns"}
BACKENDS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("services", id="services", marks=pytest.mark.services),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the marks that follow from the fixtures."""
    for item in items:
        # What the test itself asks for; `cluster` brings its marks with its parameter.
        names = set(getattr(item, "fixturenames", ()))
        # A plain parameter that happens to be called `cluster` is no cluster.
        names -= set(getattr(getattr(item, "callspec", None), "params", ()))
        if names & CLUSTER_FIXTURES:
            if "unit" in item.path.relative_to(TESTS).parts[:1]:
                taken = ", ".join(names & CLUSTER_FIXTURES)
                raise pytest.UsageError(f"{item.nodeid}: `{taken}` is a real cluster's fixture")
            item.add_marker("cluster")
        if names & SERVICES_FIXTURES:
            item.add_marker("services")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the servers this session started, in the main process and when nobody uses them."""
    if not hasattr(session.config, "workerinput"):
        stop_services_if_last()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the logs of all running clusters to a failure."""
    report = yield
    if report.failed:
        for cluster in Cluster.active:
            report.sections.append((f"cluster {cluster.backend} logs", cluster.logs()))
    return report


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The servers of scripts/services, started unless they run."""
    services, handle = acquire_services()
    with handle:
        yield services


@pytest.fixture
def backends(services: Services) -> Iterator[Backends]:
    """Empty databases, an emptied Redis number and a virtual host of this test's own."""
    with services.isolated() as backends:
        yield backends


@pytest.fixture
async def postgres_dsns(
    services: Services,
) -> AsyncIterator[list[str]]:
    """One empty database on each of the three PostgreSQL servers, dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    made: list[str] = []
    for dsn in services.postgres:
        await _execute(dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await _execute(dsn, f"CREATE DATABASE {name}")
        made.append(f"{dsn.rpartition('/')[0]}/{name}")
    yield made
    for dsn in services.postgres:
        await _execute(dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def postgres_dsn(postgres_dsns: list[str]) -> str:
    """One empty database."""
    return postgres_dsns[0]


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def embedded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded cluster for the whole session; do not break it, see `start_cluster`."""
    directory = tmp_path_factory.mktemp("embedded")
    cluster = Cluster.start(backend="embedded", directory=directory)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def services_cluster(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One cluster on PostgreSQL, Redis and RabbitMQ for the whole session."""
    directory = tmp_path_factory.mktemp("services")
    cluster = Cluster.start(backend="services", directory=directory, services=services)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session", params=BACKENDS)
def shared_cluster(request: pytest.FixtureRequest) -> Cluster:
    """The session's cluster of each backend in turn."""
    found = request.getfixturevalue(f"{request.param}_cluster")
    assert isinstance(found, Cluster)
    return found


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A serving cluster, embedded and on services in turn; shared, so name buckets uniquely."""
    shared_cluster.ensure_running()
    return shared_cluster


@pytest.fixture
def s3(cluster: Cluster) -> Iterator[S3Client]:
    """boto3 as the root user of `cluster`."""
    client = boto3_client(cluster.target)
    yield client
    client.close()


@pytest.fixture
def clients(cluster: Cluster) -> Clients:
    """aws, s3cmd, rclone and s5cmd configured for `cluster`."""
    return cluster.clients()


StartCluster = Callable[[Backend], Cluster]


@pytest.fixture
def start_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartCluster]:
    """Start clusters of the test's own, to break them; servers it stopped are started again."""
    started: list[Cluster] = []

    def start(backend: Backend) -> Cluster:
        services = request.getfixturevalue("services") if backend == "services" else None
        directory = tmp_path / f"cluster-{len(started)}"
        cluster = Cluster.start(backend=backend, directory=directory, services=services)
        started.append(cluster)
        return cluster

    yield start
    if any(cluster.backend == "services" for cluster in started):
        request.getfixturevalue("services").start_all()
    for cluster in started:
        cluster.close()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Both backends in turn, for tests that start clusters of their own."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=POSTGRES_NAMES)
def postgres_name(request: pytest.FixtureRequest) -> str:
    """The PostgreSQL server of each node in turn."""
    return str(request.param)
