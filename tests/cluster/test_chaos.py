"""A short run of the chaos harness with a fixed seed; longer ones by hand: `make chaos`."""

import pytest

from tests.chaos.run import Plan, run
from tests.support.services import Services

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

# Few and short: the whole test takes about half a minute.
SHORT = Plan(seed=7, seconds=20, hold_s=(1.0, 2.5), rest_s=(0.3, 1.0))


def test_chaos_embedded_keeps_every_promise() -> None:
    print(run(SHORT))


@pytest.mark.services
def test_chaos_with_backends_that_stop_keeps_every_promise(services: Services) -> None:
    plan = Plan(
        seed=8,
        seconds=15,
        hold_s=(1.0, 2.5),
        rest_s=(0.3, 1.0),
        only=("stop_backend", "restart_postgres", "flush_redis", "kill_leader"),
    )
    print(run(plan, services=services))
