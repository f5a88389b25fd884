"""Update: every command that changes what is there without new bytes (overwriting with bytes is
an upload): copies, tags, bucket settings, users and keys, holders.

The new state replaces the old one atomically, in one command; the checks that need state are
made while applying it.
"""

from __future__ import annotations

from astra.commands import AddHolder, SetHolders
from astra.errors import RefusalCode, Refused
from astra.wire import Commit, Committed
from node.membership import ClusterMap
from node.services.commit import Committer


class UpdateService:
    def __init__(self, *, committer: Committer, cluster: ClusterMap) -> None:
        self._committer = committer
        self._cluster = cluster

    async def commit(self, request: Commit) -> Committed:
        """See Committer.commit. Holders that no node has the name of are refused."""
        match request.command:
            case AddHolder(node_id=node_id):
                self._check_nodes((node_id,))
            case SetHolders(holders=holders, expected=before):
                # One that was removed stays named until enough others have the blob.
                self._check_nodes(holders, before)
            case _:
                pass
        return await self._committer.commit(request)

    def _check_nodes(self, node_ids: tuple[str, ...], before: tuple[str, ...] = ()) -> None:
        unknown = set(node_ids) - set(self._cluster.node_ids()) - set(before)
        if unknown or len(set(node_ids)) != len(node_ids):
            raise Refused(RefusalCode.INVALID_ARGUMENT, "holders must be different, known nodes")
