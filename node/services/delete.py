"""Delete: one command; the answer never waits for chunk files.

Applying the command makes unreferenced blobs garbage, on every node alike. Each holder deletes
its own copies after a grace, because it applied the same command (garbage.py).
"""

from __future__ import annotations

from astra.commands import DeleteObjects
from astra.constants import DELETE_KEYS_MAX, KEY_BYTES_MAX
from astra.errors import RefusalCode, Refused
from astra.wire import Commit, Committed
from node.services.commit import Committer


class DeleteService:
    def __init__(self, *, committer: Committer) -> None:
        self._committer = committer

    async def commit(self, request: Commit) -> Committed:
        """See Committer.commit. At most DELETE_KEYS_MAX keys at once."""
        command = request.command
        if isinstance(command, DeleteObjects):
            if not 0 < len(command.entries) <= DELETE_KEYS_MAX:
                raise Refused(RefusalCode.INVALID_ARGUMENT, f"1 to {DELETE_KEYS_MAX} keys")
            if any(not 0 < len(entry.key) <= KEY_BYTES_MAX for entry in command.entries):
                raise Refused(RefusalCode.INVALID_ARGUMENT, f"a key has 1 to {KEY_BYTES_MAX} bytes")
        return await self._committer.commit(request)
