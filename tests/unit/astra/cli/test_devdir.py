"""The data directory of `astra dev` when the disk does not do as it should."""

from pathlib import Path

import pytest

from astra.cli.devdir import DevDirectory
from astra.errors import ConfigError


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """As on a full disk, which was a traceback."""
    directory = DevDirectory(tmp_path / "d")
    (directory.path / "ports.json").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .*ports\.json"):
        directory.write_private("ports.json", "{}")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_damaged_file_is_told_and_kept(tmp_path: Path, text: str) -> None:
    directory = DevDirectory(tmp_path / "d")
    path = directory.path / "credentials.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"credentials\.json"):
        directory.credentials("", "")
    assert path.read_text() == text
