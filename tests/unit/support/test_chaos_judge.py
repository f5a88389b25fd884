"""The judge of chaos runs finds what it must, and accepts what real clusters may do."""

import pytest

from tests.chaos.clients import covered_keys
from tests.chaos.history import Event, History, Outcome
from tests.chaos.judge import judge

KEYS = ["k", "other"]


class Story:
    """Events one after the other, a second each."""

    def __init__(self) -> None:
        self.history = History()
        self._now = 0.0

    def add(self, kind: str, outcome: Outcome = Outcome.OK, **fields: object) -> "Story":
        self._now += 1.0
        event = Event(
            client="c", kind=kind, key="k", called=self._now, returned=self._now + 0.5,
            outcome=outcome,
        )  # fmt: skip
        for name, value in fields.items():
            setattr(event, name, value)
        self.history.add(event)
        return self

    def verdict(self) -> list[str]:
        return judge(self.history, KEYS)


def written() -> Story:
    return Story().add("PUT", op="op1", etag="e1")


def test_judge_read_your_write_is_right() -> None:
    story = written().add("GET", seen_op="op1").add("HEAD", seen_op="op1")
    assert story.add("LIST", key="", listed={"k": "e1"}).verdict() == []


def test_judge_lost_write_is_wrong_and_told_with_key_and_operations() -> None:
    found = written().add("GET", Outcome.MISSING).verdict()
    assert len(found) == 1
    assert "key k is not linearizable" in found[0]
    assert "op1" in found[0]


@pytest.mark.parametrize("listed", [{}, {"k": "e0"}, {"k": "e1", "other": "e1"}])
def test_judge_list_that_lacks_or_invents_is_wrong(listed: dict[str, str]) -> None:
    assert written().add("LIST", key="", listed=listed).verdict()


def test_judge_page_speaks_of_the_keys_that_it_covers_only() -> None:
    assert written().add("LIST", key="", listed={}, covered=["other"]).verdict() == []
    assert written().add("LIST", key="", listed={}, covered=["k"]).verdict()
    assert written().add("LIST", key="", listed={"k": "e1"}, covered=["k"]).verdict() == []


def test_covered_keys_are_those_between_two_pages() -> None:
    keys = ["a/1", "b/2", "a/3", "b/4", "a/5"]
    assert covered_keys(keys, "", "", "") == keys
    assert covered_keys(keys, "a/", "a/1", "a/3") == ["a/3"]
    assert covered_keys(keys, "a/", "a/1", "") == ["a/3", "a/5"]


def test_judge_list_that_shows_what_was_deleted_is_wrong() -> None:
    story = written().add("DELETE", op="op2")
    assert story.add("LIST", key="", listed={"k": "e1"}).verdict()


def test_judge_write_without_answer_may_appear_and_may_not() -> None:
    for seen in ("op1", "op2"):
        story = written().add("PUT", Outcome.UNKNOWN, op="op2", etag="e2")
        assert story.add("GET", seen_op=seen).verdict() == []


def test_judge_two_winners_of_if_none_match_are_wrong() -> None:
    story = Story()
    for op in ("op1", "op2"):
        story.add("PUT", op=op, etag=f"e{op}", if_none_match=True)
    assert story.verdict()


def test_judge_if_match_must_have_seen_the_etag() -> None:
    assert written().add("PUT", op="op2", etag="e2", if_match="e1").verdict() == []
    assert written().add("PUT", op="op2", etag="e2", if_match="e0").verdict()
    refused = written().add("PUT", Outcome.REFUSED, op="op2", etag="e2", if_match="e1")
    assert refused.verdict()


def copied(story: Story) -> Story:
    return story.add("COPY", op="op2", etag="e1", key="other", source="k")


def test_judge_copy_reads_its_source() -> None:
    assert copied(written()).add("GET", key="other", seen_op="op2").verdict() == []
    assert copied(written().add("DELETE", op="op3")).verdict()


def test_judge_copy_without_answer_is_known_by_its_list_entry() -> None:
    story = written().add("COPY", Outcome.UNKNOWN, op="op2", key="other", source="k")
    assert story.add("LIST", key="", listed={"k": "e1", "other": "e1"}).verdict() == []
