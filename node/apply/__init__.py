"""Applying committed commands to the metadata tables. Start with entries.py."""

from node.apply.entries import apply_entries
from node.apply.touched import (
    NOTHING,
    Touched,
    buckets_touched,
    keys_touched,
    touched_by,
    touched_by_entry,
)

__all__ = [
    "NOTHING",
    "Touched",
    "apply_entries",
    "buckets_touched",
    "keys_touched",
    "touched_by",
    "touched_by_entry",
]
