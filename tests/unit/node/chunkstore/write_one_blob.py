"""Stores or repairs one blob, between two marks in the trace. Run by test_crash.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

from astra.constants import CHUNK_SIZE  # the path is set above
from node.chunkstore.format import crc32c  # the path is set above
from node.chunkstore.store import DiskChunkStore  # the path is set above
from tests.support.chunkstore import (  # the path is set above
    CLUSTER,
    NODE,
    pattern,
    store_bytes,
)


def main() -> None:
    root, blob_id, action = sys.argv[1:]
    content = pattern(2 * CHUNK_SIZE + 11, seed=7)
    good = content[CHUNK_SIZE : 2 * CHUNK_SIZE]
    store = DiskChunkStore(root, cluster_id=CLUSTER, node_id=NODE)
    os.write(1, b"BEGIN-BLOB\n")
    if action == "store":
        store_bytes(store, blob_id, content)
    else:
        store.replace_chunk(blob_id, 1, good, crc32c(good))
    os.write(1, b"STORED END-BLOB\n")


main()
