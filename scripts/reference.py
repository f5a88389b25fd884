"""Writes docs/reference from the tables in the code: what is documented cannot drift from it.

.venv/bin/python scripts/reference.py          writes the pages
.venv/bin/python scripts/reference.py --check  exit status 1 when a page is not up to date
"""

import inspect
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from astra import commands, wire  # noqa: E402 (the path comes first)
from astra.config import SETTINGS  # noqa: E402
from gateway.s3api.errors import ERRORS  # noqa: E402
from gateway.s3api.operations import OPERATIONS  # noqa: E402

PAGES = ROOT / "docs" / "reference"
HEAD = "<!-- Written by scripts/reference.py out of the code. Do not edit. -->\n\n"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    rows = [
        [
            f"`{setting.name}`",
            f"`{setting.env}`" + (" (or `_FILE`)" if setting.is_secret else ""),
            f"`{setting.default}`" if setting.default != "" else "",
            setting.help,
        ]
        for setting in SETTINGS
    ]
    text = (
        "# Settings\n\nA flag wins over the environment, that over the TOML file, that over the "
        "default. In the file `a.b` is `b` in the table `[a]`; a secret may be named by a file, "
        "`b_file`, which only its owner may read. `astra config show` tells what is in force.\n\n"
    )
    return text + table(["setting", "environment", "default", "meaning"], rows)


def operations_page() -> str:
    done = [op for op in OPERATIONS if op.implemented]
    rows = [
        [op.name, op.method, op.level.value, f"`{op.action}`", "yes" if op.implemented else "501"]
        for op in OPERATIONS
    ]
    text = (
        f"# S3 operations\n\n{len(done)} of {len(OPERATIONS)} are served; every other one answers "
        "501 NotImplemented with its name.\n\n"
    )
    return text + table(["operation", "method", "level", "action", "served"], rows)


def errors_page() -> str:
    rows = [[code, str(status), message] for code, (status, message) in sorted(ERRORS.items())]
    return "# S3 errors\n\n" + table(["code", "status", "message"], rows)


def first_sentence(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    return " ".join(text.split("\n\n")[0].split())


def messages_page() -> str:
    messages = [[kind.__name__, first_sentence(kind)] for kind in typing.get_args(wire.Message)]
    changes = [
        [kind.__name__, first_sentence(kind)] for kind in typing.get_args(commands.AnyCommand)
    ]
    return (
        "# Messages and commands\n\n## Messages on the wire (astra/wire.py)\n\n"
        + table(["message", "meaning"], messages)
        + "\n## Commands of the log (astra/commands.py)\n\n"
        + table(["command", "meaning"], changes)
    )


def pages() -> dict[Path, str]:
    """Every page and what it should hold."""
    return {
        PAGES / "settings.md": HEAD + settings_page(),
        PAGES / "operations.md": HEAD + operations_page(),
        PAGES / "errors.md": HEAD + errors_page(),
        PAGES / "messages.md": HEAD + messages_page(),
    }


def main() -> int:
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not up to date: run scripts/reference.py")
        return 1 if stale else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
