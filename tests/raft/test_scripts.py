"""Scripted traces: testdata/*.txt hold commands and, after ----, exactly what must happen.

`ASTRA_RAFT_REWRITE=1 pytest tests/raft` records them again: read the difference before you
commit it. The commands are the methods of `Script` whose names start with `do_`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astra import wire
from astra.errors import AstraError
from astra.wire import Membership
from node.raft.config import RaftConfig
from tests.support.raftbench import Bench, read_entries

TESTDATA = Path(__file__).parent / "testdata"
REWRITE = os.environ.get("ASTRA_RAFT_REWRITE") == "1"


class Script:
    """Runs one file."""

    def __init__(self) -> None:
        self.bench = Bench(["1"])

    def run(self, command: str) -> str:
        name, *words = command.split()
        self.bench.trace.clear()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        arguments = [word for word in words if "=" not in word]
        try:
            getattr(self, f"do_{name}")(arguments, options)
        except AstraError as error:
            self.bench.trace.append(f"error {type(error).__name__}: {error}")
        return "\n".join(self.bench.trace) or "ok"

    def do_nodes(self, arguments: list[str], options: dict[str, str]) -> None:
        """nodes 1 2 3 [learners=4,5] [spare=6] [any setting of RaftConfig=VALUE]"""
        learners = options.pop("learners", "").split(",") if "learners" in options else []
        spare = options.pop("spare", "").split(",") if "spare" in options else []
        config = RaftConfig(**read_values(options))
        self.bench = Bench(arguments, learners=[*learners, *spare], config=config)
        self.bench.membership = Membership(voters=tuple(arguments), learners=tuple(learners))

    def do_config(self, arguments: list[str], options: dict[str, str]) -> None:
        """config 3 pre_vote=no: the settings of this node differ; before its start"""
        for node_id in arguments:
            node = self.bench[node_id]
            node.config = replace(node.config, **read_values(options))

    def do_start(self, arguments: list[str], options: dict[str, str]) -> None:
        """start 1 2 [log=1,1,2] [term=3]: loads the nodes with one entry per term"""
        terms = [int(each) for each in options.get("log", "").split(",") if each]
        term = int(options["term"]) if "term" in options else None
        for node_id in arguments:
            self.bench.start(node_id, terms=terms, term=term)

    def do_join(self, arguments: list[str], _: dict[str, str]) -> None:
        """join 4: starts a node that belongs to no group yet"""
        for node_id in arguments:
            self.bench[node_id].disk.initialize(Membership(voters=()))
            self.bench.start(node_id)

    def do_restart(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            self.bench.restart(node_id)

    def do_crash(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            self.bench[node_id].core = None

    def do_campaign(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench[arguments[0]].raft.campaign()

    def do_propose(self, arguments: list[str], _: dict[str, str]) -> None:
        index, term = self.bench[arguments[0]].raft.propose(arguments[1].encode())
        self.bench.trace.append(f"at {index}/{term}")

    def do_membership(self, arguments: list[str], options: dict[str, str]) -> None:
        """membership LEADER voters=1,2 [learners=3]"""
        learners = tuple(each for each in options.get("learners", "").split(",") if each)
        wanted = Membership(voters=tuple(options["voters"].split(",")), learners=learners)
        index, term = self.bench[arguments[0]].raft.propose_membership(wanted)
        self.bench.trace.append(f"at {index}/{term}")

    def do_transfer(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench[arguments[0]].raft.transfer(arguments[1])

    def do_read(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench[arguments[0]].raft.read_index(int(arguments[1]))

    def do_lease(self, arguments: list[str], options: dict[str, str]) -> None:
        """lease 1 [after=MS]: asks with a clock reading that much later"""
        now_ms = self.bench.now_ms + int(options.get("after", "0"))
        valid = self.bench[arguments[0]].raft.lease_valid(now_ms)
        self.bench.trace.append("valid" if valid else "not valid")

    def do_ready(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            self.bench.ready(node_id)

    def do_hold(self, arguments: list[str], _: dict[str, str]) -> None:
        """hold 1: its disk takes its time; see persist"""
        for node_id in arguments:
            self.bench[node_id].is_held = True

    def do_persist(self, arguments: list[str], options: dict[str, str]) -> None:
        """persist 1 [count=1]: the oldest waiting writes become durable"""
        self.bench.persist(arguments[0], int(options.get("count", "1000")))

    def do_release(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            self.bench[node_id].is_held = False
            self.bench.persist(node_id)

    def do_deliver(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench.deliver(*arguments)

    def do_copy(self, arguments: list[str], _: dict[str, str]) -> None:
        """copy 1 2: remembers what waits from 1 to 2; see late"""
        self.bench.copy(*arguments)

    def do_drop(self, arguments: list[str], _: dict[str, str]) -> None:
        """drop 1 2: what waits from 1 to 2 is lost"""
        self.bench.drop(*arguments)

    def do_late(self, arguments: list[str], _: dict[str, str]) -> None:
        """late 1 2: everything that was copied arrives, once more"""
        self.bench.late(*arguments)

    def do_send(self, arguments: list[str], options: dict[str, str]) -> None:
        """send 2 1 VoteReply term=1 granted=yes: a message of the script's own making"""
        sender, to, kind = arguments
        values = read_values(options)
        if "entries" in options:
            values["entries"] = read_entries(options["entries"])
        if "voters" in options:
            values["membership"] = Membership(voters=tuple(options["voters"].split(",")))
        self.bench.send(sender, to, getattr(wire, kind)(**values))

    def do_stabilize(self, _: list[str], __: dict[str, str]) -> None:
        self.bench.stabilize()

    def do_settle(self, _: list[str], __: dict[str, str]) -> None:
        """As stabilize, without the trace"""
        self.bench.stabilize()
        self.bench.trace.clear()

    def do_advance(self, arguments: list[str], _: dict[str, str]) -> None:
        """advance MS [nodes that tick; nobody]: the others notice when they get a message"""
        self.bench.advance(int(arguments[0]), *arguments[1:])

    def do_beat(self, arguments: list[str], _: dict[str, str]) -> None:
        """beat LEADER N: heartbeats pass quietly; all clocks tick"""
        self.bench.beat(arguments[0], int(arguments[1]))
        self.bench.trace.clear()

    def do_isolate(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench.isolate(*arguments)

    def do_heal(self, _: list[str], __: dict[str, str]) -> None:
        self.bench.cut.clear()

    def do_compact(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench.compact(arguments[0], int(arguments[1]))

    def do_install(self, arguments: list[str], _: dict[str, str]) -> None:
        self.bench.install_snapshot(arguments[0])

    def do_interrupt(self, arguments: list[str], _: dict[str, str]) -> None:
        """interrupt 3: the snapshot that 3 fetches breaks off before anything was replaced"""
        self.bench.interrupt_snapshot(arguments[0])

    def do_forget(self, arguments: list[str], _: dict[str, str]) -> None:
        """forget 3 2: a crash would leave only so many entries applied; see restart"""
        del self.bench[arguments[0]].applied[int(arguments[1]) :]

    def do_log(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            node = self.bench[node_id]
            terms = " ".join(str(term) for term in node.terms)
            first = node.raft.first_index
            self.bench.trace.append(
                f"{node_id}: first={first} commit={node.raft.commit_index} terms {terms}"
            )

    def do_status(self, arguments: list[str], _: dict[str, str]) -> None:
        for node_id in arguments:
            status = self.bench[node_id].raft.status()
            transfer = self.bench[node_id].raft.transfer_to
            self.bench.trace.append(
                f"{node_id}: {status.role} term={status.term} leader={status.leader}"
                f" commit={status.commit} voters={','.join(status.membership.voters)}"
                f" learners={','.join(status.membership.learners)}"
                + (f" transfer={transfer}" if transfer is not None else "")
            )
            for peer, each in status.peers.items():
                self.bench.trace.append(
                    f"  {peer}: {each.state} match={each.match} next={each.next}"
                )


def read_values(options: dict[str, str]) -> dict[str, Any]:
    """Numbers, and yes or no."""
    flags = {"yes": True, "no": False}
    values: dict[str, Any] = {key: flags[text] for key, text in options.items() if text in flags}
    return values | {key: int(text) for key, text in options.items() if text.isdigit()}


def parse(text: str) -> list[tuple[str, str, str]]:
    """(comment lines, command, expected trace) for each block between empty lines."""
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        comments = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        if not rest:
            blocks.append(("\n".join(comments), "", ""))
            continue
        expected = "\n".join(rest[2:])
        blocks.append(("\n".join(comments), rest[0], expected))
    return blocks


def render(blocks: list[tuple[str, str, str]]) -> str:
    shown = []
    for comment, command, trace in blocks:
        lines = [comment] if comment else []
        if command:
            lines += [command, "----", trace]
        shown.append("\n".join(lines))
    return "\n\n".join(shown) + "\n"


@pytest.mark.parametrize("path", sorted(TESTDATA.glob("*.txt")), ids=lambda path: path.stem)
def test_script_gives_its_recorded_trace(path: Path) -> None:
    recorded = path.read_text()
    script = Script()
    actual = render(
        [
            (comment, command, script.run(command) if command else "")
            for comment, command, _ in parse(recorded)
        ]
    )
    if REWRITE:
        path.write_text(actual)
    else:
        assert actual == recorded


def test_there_are_scripts() -> None:
    assert len(list(TESTDATA.glob("*.txt"))) >= 12
