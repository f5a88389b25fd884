"""What `astra status` concludes from what the leader and a node say of that node."""

import pytest

from astra.cli.status import judged


def row(**more: object) -> dict[str, object]:
    return {"id": "n3", "health": "ok", "problems": ["n2 is silent"], **more}


def test_voter_that_sits_beside_the_group_is_a_problem() -> None:
    """Its docs say: stop one node after the other, and wait until status tells no problem."""
    found = judged(row(part="voter", role="learner"))
    assert found["health"] == "degraded"
    assert found["problems"] == [
        "n2 is silent",
        "does not vote yet: wait with stopping another node",
    ]


@pytest.mark.parametrize(
    ("part", "role"),
    [("voter", "follower"), ("voter", "leader"), ("learner", "learner"), ("follower", "learner")],
)
def test_node_in_the_part_that_the_leader_has_for_it_is_well(part: str, role: str) -> None:
    healthy = row(part=part, role=role)
    assert judged(healthy) == healthy


def test_without_a_leader_nothing_is_concluded() -> None:
    healthy = row(role="learner")
    assert judged(healthy) == healthy
