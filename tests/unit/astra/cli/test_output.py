"""What the command line prints, and what it takes for names."""

from dataclasses import replace

import pytest

from astra.cli.key import NewKey, create_key
from astra.cli.output import Format, print_table
from astra.config import load
from astra.errors import ConfigError

WANTED = NewKey(
    user_id="alice", display_name="", email="", access_key="", secret_key="", is_root=False
)


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_table_loses_nothing_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    """The secret of a new key is shown once."""
    monkeypatch.setenv("COLUMNS", columns)
    secret = "s" * 40
    print_table(("user_id", "secret_key"), [{"user_id": "u" * 64, "secret_key": secret}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert secret in lines[1]


def test_a_table_shows_markup_and_control_characters_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("a",), [{"a": "[red]x[/red]"}, {"a": "y\x1b[31m\nz"}])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == ["[red]x[/red]", "y\ufffd[31m\ufffdz"]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(WANTED, display_name="a\nb"),
        replace(WANTED, display_name="a\x1b[31m"),
        replace(WANTED, display_name="a" * 129),
        replace(WANTED, email="nobody"),
        replace(WANTED, email="a b@c"),
        replace(WANTED, user_id="a b"),
        replace(WANTED, secret_key="short"),
    ],
)
def test_odd_names_are_refused_before_anybody_is_asked(wrong: NewKey) -> None:
    with pytest.raises(ConfigError):
        create_key(load(environ={}), wrong, Format.JSON)
