"""requirements/*.txt pin everything that the .in files name, with hashes, and agree."""

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)[^\n]*((?:\n +--hash=\S+[^\n]*)*)", re.M
)


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(file: str) -> set[str]:
    """Names in a .in file and in the files it includes."""
    names: set[str] = set()
    for line in (REQUIREMENTS / file).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            names |= named(text.removeprefix("-r ").strip())
        elif text:
            match = re.match(r"[A-Za-z0-9._-]+", text)
            assert match, text
            names.add(canonical(match.group()))
    return names


def pinned(file: str) -> dict[str, set[tuple[str, int]]]:
    """Name -> (version, number of hashes) of a .txt file; markers may give a name several."""
    found: dict[str, set[tuple[str, int]]] = {}
    for name, version, hashes in PIN.findall((REQUIREMENTS / file).read_text()):
        found.setdefault(canonical(name), set()).add((version, hashes.count("--hash=sha256:")))
    return found


@pytest.mark.parametrize("stem", ["run", "test"])
def test_every_named_requirement_is_pinned(stem: str) -> None:
    assert named(f"{stem}.in") <= pinned(f"{stem}.txt").keys()


@pytest.mark.parametrize("stem", ["run", "test"])
def test_every_pin_has_a_hash(stem: str) -> None:
    pins = pinned(f"{stem}.txt")
    lines = (REQUIREMENTS / f"{stem}.txt").read_text().splitlines()
    assert sum(len(pin) for pin in pins.values()) == sum("==" in line for line in lines)
    assert all(hashes for pin in pins.values() for _version, hashes in pin)


def test_pins_of_run_and_test_agree() -> None:
    tested = pinned("test.txt")
    differing = {name for name, pin in pinned("run.txt").items() if tested.get(name) != pin}
    assert not differing
