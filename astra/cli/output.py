"""How the command line speaks: JSON for scripts, tables for people, one clear line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_MAX: Final = 10_000  # wider than any row: a terminal breaks lines, it loses nothing


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


def print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """One line per row, whole however narrow the terminal is: a secret is shown only once.
    Columns are named in capitals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper().replace("_", " "))
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    Console(width=_WIDTH_MAX, soft_wrap=True).print(table)


def _shown(value: object) -> Text:
    """The value as it is: no markup, and nothing that would steer a terminal."""
    if value is None:
        return Text("-")
    text = "; ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value)
    return Text("".join(char if char.isprintable() else "\ufffd" for char in text))


def print_error(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    line = " ".join(message.split())
    sys.stderr.write(f"astra: {line}\n")
