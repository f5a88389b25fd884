"""How results of the public suite are read and counted."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest

from scripts.s3suite.capability import OTHER, capability_of
from scripts.s3suite.results import Outcome, read_outcomes, render_counts
from scripts.s3suite.users import USERS, write_configuration


@pytest.mark.parametrize(
    ("name", "markers", "capability"),
    [
        ("test_bucket_list_delimiter_basic", set(), "listing v1"),
        ("test_bucket_listv2_delimiter_basic", {"list_objects_v2"}, "listing v2"),
        ("test_bucket_create_bad_date_none_aws2", {"auth_aws2"}, "headers SigV2"),
        ("test_post_object_tags_anonymous_request", {"tagging"}, "POST object"),
        ("test_get_obj_head_tagging", {"tagging"}, "tagging"),
        ("test_multipart_put_object_if_match", {"conditional_write"}, "conditional"),
        ("test_versioning_multi_object_delete", set(), "versioning"),
        ("test_ranged_request_skip_leading_bytes", set(), "ranges"),
        ("test_copy_enc[AES256-aws:kms]", {"encryption"}, "copy between SSE modes"),
        ("test_something_never_seen", set(), OTHER),
    ],
)
def test_capability_of_a_test_is_found_by_name_and_markers(
    name: str, markers: set[str], capability: str
) -> None:
    assert capability_of(name, markers) == capability


def record(name: str, outcome: str, when: str = "call", reason: str = "") -> str:
    return json.dumps(
        {"name": name, "when": when, "outcome": outcome, "markers": [], "reason": reason}
    )


def test_outcomes_of_a_test_that_fails_in_its_teardown_has_not_passed(tmp_path: Path) -> None:
    file = tmp_path / "results"
    lines = [
        record("test_range", "passed"),
        record("test_bucket", "passed"),
        record("test_bucket", "failed", "teardown", "why"),
        record("test_acl", "failed"),
    ]
    file.write_text("\n".join(lines))
    found = read_outcomes(file)
    assert {o.name: o.outcome for o in found} == {
        "test_range": "passed",
        "test_bucket": "failed",
        "test_acl": "failed",
    }
    assert next(o.reason for o in found if o.name == "test_bucket") == "why"


def test_counts_are_by_capability_and_in_all() -> None:
    def outcome(capability: str, word: str) -> Outcome:
        return Outcome(name="test", capability=capability, outcome=word, reason="")

    table = render_counts([outcome("b", "passed"), outcome("a", "failed"), outcome("b", "skipped")])
    assert table.splitlines()[2:] == [
        "| a | 0 | 1 |",
        "| b | 1 | 2 |",
        "| **all** | **1** | **3** |",
    ]


def test_configuration_has_the_six_users_with_keys_of_their_own(tmp_path: Path) -> None:
    write_configuration(tmp_path / "conf", 9000)
    found = configparser.RawConfigParser()
    found.read(tmp_path / "conf")
    assert set(found.sections()) == {"fixtures", *(user.section for user in USERS)}
    assert found["DEFAULT"]["port"] == "9000"
    keys = {found[user.section]["access_key"] for user in USERS}
    assert len(keys) == len(USERS) == 6
