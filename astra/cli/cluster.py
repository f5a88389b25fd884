"""The command line's way into a cluster: as a peer that knows its secret."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from astra.cli.settings import cluster_secret, node_addresses, peer_tls
from astra.commands import AnyCommand, Refusal, Result
from astra.config import Config
from astra.errors import AstraError, Refused
from astra.leader import LeaderClient
from astra.net import Dialer
from astra.wire import Commit, Committed, Epochs, GetStatus, NodeStatus


def _dialer(config: Config) -> Dialer:
    return Dialer(
        secret=cluster_secret(config),
        role="gateway",
        peer_id="astra-cli",
        tls=peer_tls(config),
    )


@asynccontextmanager
async def connected(
    config: Config, *, timeout_s: float = 15.0, attempt_timeout_s: float = 3.0
) -> AsyncIterator[LeaderClient]:
    """The leader of the configured cluster, for as long as the context lasts."""
    dialer = _dialer(config)
    try:
        yield LeaderClient(
            dialer,
            node_addresses(config),
            timeout_s=timeout_s,
            attempt_timeout_s=attempt_timeout_s,
        )
    finally:
        await dialer.close()


async def commit(leader: LeaderClient, command: AnyCommand) -> Result:
    """Commits one command outside of any user's rights. Raises Refused, Unavailable."""
    message = Commit(request_id=secrets.token_hex(16), epochs=Epochs(), command=command)
    result = (await leader.ask(message, Committed)).result
    if isinstance(result, Refusal):
        raise Refused(result.code, result.detail)
    return result


async def node_statuses(
    config: Config, peers: Mapping[str, str]
) -> dict[str, NodeStatus | AstraError]:
    """What each node says of itself, or why it says nothing. By node id."""
    dialer = _dialer(config)

    async def ask(address: str) -> NodeStatus | AstraError:
        try:
            answer = await dialer.control(address).call(GetStatus(), timeout_s=2.0)
        except AstraError as error:
            return error
        return answer if isinstance(answer, NodeStatus) else AstraError("no status")

    try:
        answers = await asyncio.gather(*(ask(address) for address in peers.values()))
        return dict(zip(peers, answers, strict=True))
    finally:
        await dialer.close()
