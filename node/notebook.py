"""Small notes of background work that survive a restart: how far the scrub has come.

Rules: a note is small. Losing one costs work, never data: so nothing is synced, and a note that
cannot be read counts as none. Names are constants of the code.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

NOTE_BYTES_MAX: Final = 64 * 1024


class Notebook(Protocol):
    async def read(self, name: str) -> bytes | None: ...

    async def write(self, name: str, data: bytes) -> None:
        """Best effort: never raises for the disk's sake."""
        ...


class FileNotebook:
    """One small file per note in the data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._read, self._directory / name)

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(NOTE_BYTES_MAX)
        except OSError:
            return None

    async def write(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._replace, self._directory / name, data)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            return  # a full or broken disk is reported by those who need it


class MemoryNotebook:
    def __init__(self) -> None:
        self._notes: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        return self._notes.get(name)

    async def write(self, name: str, data: bytes) -> None:
        self._notes[name] = data
