"""Files with known random bytes for tests of clients, made and compared in small pieces."""

import filecmp
import random
from pathlib import Path

MIB = 1024 * 1024
PIECE_BYTES = 4 * MIB


def make_file(path: Path, size: int, seed: int | str = 0) -> Path:
    """`size` bytes that follow from `seed`; the parents are made. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(f"{seed}:{size}")
    with path.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(source.randbytes(min(PIECE_BYTES, size - start)))
    return path


def make_tree(root: Path, count: int, size: int = 1000) -> Path:
    """`count` files in a few directories, names with a space and an umlaut among them."""
    for number in range(count):
        make_file(root / f"d {number % 7}" / f"größe-{number:04d}.bin", size + number, number)
    return root


def same_file(one: Path, other: Path) -> bool:
    """True when both have the same bytes."""
    return filecmp.cmp(one, other, shallow=False)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root` by its relative name; for small trees."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
