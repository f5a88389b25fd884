"""What decoding msgpack raises when the bytes are not what they should be. Values only.

All three come from bytes alone: a wrong type or a cut end, text that is not UTF-8, and nesting
deeper than the interpreter's stack (msgspec skips unknown fields recursively). Whoever decodes
what came from a peer, the bus, the cache or a disk catches all of them and raises an error of its
own; tests/fuzz holds that.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
