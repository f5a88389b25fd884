"""A short run of the chaos harness with a fixed seed; longer ones by hand: `make chaos`."""

import pytest

from tests.chaos.run import Plan, run
from tests.support.services import Services

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

# Few and short: with start, healing and verdict well under a minute on two free cores.
SHORT = Plan(seed=7, seconds=12, hold_s=(0.8, 2.0), rest_s=(0.2, 0.6))


def test_chaos_embedded_keeps_every_promise() -> None:
    print(run(SHORT))


@pytest.mark.services
def test_chaos_with_backends_that_stop_keeps_every_promise(services: Services) -> None:
    plan = Plan(
        seed=8,
        seconds=10,
        hold_s=(0.8, 2.0),
        rest_s=(0.2, 0.6),
        only=("stop_backend", "pause_backend", "restart_postgres", "flush_redis", "kill_leader"),
    )
    print(run(plan, services=services))
