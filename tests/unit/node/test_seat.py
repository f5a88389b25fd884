"""Whether there is a cluster already, as far as the others say."""

import pytest

from astra.errors import Unavailable
from node.seat import any_has_log

VOTERS = {"a", "b"}


async def says(found: bool | None) -> bool:
    if found is None:
        raise Unavailable("silent")
    return found


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, False),
        ({"a": False, "b": False}, False),
        ({"a": False, "b": True}, True),
        ({"a": None, "b": True}, True),
        ({"a": None, "b": False}, None),
        ({"a": None, "b": None}, None),
        ({"a": False, "b": False, "learner": None}, False),
        ({"a": False, "b": False, "learner": True}, True),
    ],
)
async def test_any_has_log_silence_of_a_voter_is_no_answer(
    answers: dict[str, bool | None], expected: bool | None
) -> None:
    asking = {node: says(found) for node, found in answers.items()}
    assert await any_has_log(asking, VOTERS) is expected
