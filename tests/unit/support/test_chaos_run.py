"""What a run looks at after its load: the logs."""

from pathlib import Path

import pytest

from tests.chaos.history import Event, Fault, History, Outcome
from tests.chaos.run import longest_silence, told_secrets
from tests.chaos.server import Server


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("node started", False),
        ("cannot connect to redis://:hunter2@127.0.0.1", True),
        ("Authorization: AWS4-HMAC-SHA256 Credential=x, Signature=ab12", True),
    ],
)
def test_told_secrets_finds_them_in_any_log(tmp_path: Path, text: str, is_told: bool) -> None:
    (tmp_path / "quiet.log").write_text("nothing")
    (tmp_path / "n1.log").write_text(f"first line\n{text}\n")
    servers = [Server(name, [], tmp_path / f"{name}.log") for name in ("quiet", "n1")]
    found = told_secrets(servers, ["hunter2"])
    assert found == (["the log of n1 holds a secret"] if is_told else [])


def test_longest_silence_is_between_acknowledged_writes() -> None:
    history = History()
    history.started = 100.0
    for returned, outcome in ((101, Outcome.OK), (103, Outcome.UNKNOWN), (106, Outcome.OK)):
        history.add(
            Event(client="c", kind="PUT", key="k", called=100, returned=returned, outcome=outcome)
        )
    history.add(Event(client="c", kind="GET", key="k", called=100, returned=104))
    history.faults.append(Fault(name="kill_leader", detail="n1", began=101.5, ended=102))
    history.faults.append(Fault(name="kill_all", detail="", began=107, ended=108))
    assert longest_silence(history) == "5.0 s without a write from 1.0 s on (kill_leader)"
