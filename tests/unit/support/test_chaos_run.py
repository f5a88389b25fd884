"""What a run looks at after its load: the logs."""

from pathlib import Path

import pytest

from tests.chaos.run import told_secrets
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
