"""A cluster per module that its tests may break, as long as they leave it running."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.load import Load
from tests.support.services import Services

BOTH = [
    pytest.param("embedded", id="embedded"),
    pytest.param("services", id="services", marks=pytest.mark.services),
]


@pytest.fixture(scope="module", params=BOTH)
def breakable_module_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Both backends in turn."""
    services = None
    if request.param == "services":
        found = request.getfixturevalue("services")
        assert isinstance(found, Services)
        services = found
    cluster = Cluster.start(
        backend=request.param, directory=tmp_path_factory.mktemp("breakable"), services=services
    )
    yield cluster
    cluster.close()


@pytest.fixture
def breakable(breakable_module_cluster: Cluster) -> Cluster:
    """The module's cluster, whole again after whatever the test before did to it."""
    breakable_module_cluster.ensure_running()
    breakable_module_cluster.wait_healthy()
    return breakable_module_cluster


@pytest.fixture
def load(breakable: Cluster) -> Load:
    """Clients for `breakable`, not started yet."""
    return Load(breakable.target)
