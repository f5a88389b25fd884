"""One run: load, faults from the seed one after the other, healing, verdict."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos import faults
from tests.chaos.census import compare, missing_copies
from tests.chaos.clients import Load
from tests.chaos.faults import Fault, Scene
from tests.chaos.history import Fault as Done
from tests.chaos.history import History, Outcome
from tests.chaos.judge import WRITES, judge
from tests.chaos.rig import Rig, save
from tests.chaos.server import Server, run_for
from tests.support.services import Services
from tests.support.wait import wait_until

QUIET_S: Final = 1.0  # load before the first fault
COPIES_S: Final = 90.0  # what the walk of a new leader took for arriving, the next one finds
ANSWER_S: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a run follows from."""

    seed: int
    seconds: float
    clients: int = 6
    keys: int = 24
    pause_s: float = 0.02
    hold_s: tuple[float, float] = (1.0, 6.0)
    rest_s: tuple[float, float] = (0.5, 3.0)
    only: tuple[str, ...] = ()  # names of faults; empty: all


class Failed(AssertionError):
    """The verdict of a run, with everything that is needed to look into it."""


def run(plan: Plan, *, services: Services | None = None, say: Callable[[str], None] = print) -> str:
    """Returns a summary. Raises Failed; then the directory with history and logs is kept."""
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.seed}-"))
    rig = Rig(directory, seed=plan.seed, services=services, say=say)
    load: Load | None = None
    try:
        rig.start()
        load = Load(
            rig.target, seed=plan.seed, clients=plan.clients, keys=_keys(plan), pause_s=plan.pause_s
        )
        load.make_bucket()
        scene = Scene(rig=rig, chance=random.Random(f"{plan.seed}/faults"))
        with load.running():
            _play(plan, scene, load.history, say)
        wrong = _heal(scene, load, say) + scene.wrong + rig.surprises()
        wrong += judge(load.history, load.keys)
        wrong += _look_at_disks(scene)
        wrong += told_secrets(rig.servers(), rig.secrets())
        if wrong:
            raise AssertionError("\n\n".join(wrong))
    except BaseException as error:
        for server in rig.nodes.values():
            server.signal(signal.SIGCONT)  # a frozen one could not be ended in order
        kept = _keep(directory, load)
        raise Failed(f"seed {plan.seed}: {error}\nkept in {kept}\n{rig.tails()}") from error
    finally:
        rig.close()
    summary = _summary(plan, load.history)
    remove(directory)
    return summary


def _keys(plan: Plan) -> list[str]:
    return [f"{'ab'[number % 2]}/k{number:02}" for number in range(plan.keys)]


# --- faults ---


def _play(plan: Plan, scene: Scene, history: History, say: Callable[[str], None]) -> None:
    """Faults until the time is up; each is over before the next begins."""
    deadline = time.monotonic() + plan.seconds
    chance = scene.chance
    run_for(QUIET_S)
    for fault in _deck(plan, scene):
        hold = min(chance.uniform(*plan.hold_s), deadline - time.monotonic())
        if hold <= 0:
            return
        _suffer(fault, scene, history, hold, say)
        scene.rig.links().heal()
        for server in scene.rig.servers():
            if not server.is_running():
                return  # it ended by itself: the verdict says so
        run_for(max(min(chance.uniform(*plan.rest_s), deadline - time.monotonic()), 0))


def _deck(plan: Plan, scene: Scene) -> Iterator[Fault]:
    """All faults in an order from the seed, then all of them again in another."""
    known: Sequence[Fault] = faults.FAULTS
    if scene.rig.services is not None:
        known = (*known, *faults.BACKEND_FAULTS, *faults.BACKEND_FAULTS)
    chosen = [each for each in known if not plan.only or each.__name__ in plan.only]
    assert chosen, f"no fault is called one of {plan.only}"
    while True:
        scene.chance.shuffle(chosen)
        yield from chosen


def _suffer(
    fault: Fault, scene: Scene, history: History, hold: float, say: Callable[[str], None]
) -> None:
    done = Done(name=fault.__name__, detail="", began=time.monotonic())
    steps = fault(scene)
    detail = next(steps, None)
    if detail is None:
        return  # it cannot be done here
    done.detail = detail
    history.faults.append(done)
    say(f"{time.monotonic() - history.started:7.1f}  {done.name} {detail}, for {hold:.1f} s")
    run_for(hold)
    next(steps, None)
    done.ended = time.monotonic()


# --- afterwards ---


def _heal(scene: Scene, load: Load, say: Callable[[str], None]) -> list[str]:
    """Everything back to good; what does not come back."""
    rig, began = scene.rig, time.monotonic()
    wrong = rig.surprises()
    for server in rig.servers():
        server.surprises.clear()
    rig.heal()
    try:
        rig.wait_healthy()
        load.read_everything(ANSWER_S)
    except AssertionError as error:
        wrong.append(f"after healing: {error}")
    say(f"healed in {time.monotonic() - began:.1f} s")
    return wrong


def _look_at_disks(scene: Scene) -> list[str]:
    rig, disks = scene.rig, scene.rig.disks()
    try:
        wait_until(
            lambda: not missing_copies(disks, scene.damaged), COPIES_S, "three copies", poll=0.5
        )
    except AssertionError:
        return ["copies are missing: " + "; ".join(missing_copies(disks, scene.damaged)[:5])]
    rig.wait_healthy()
    status = rig.gateway.stop()
    wrong = [f"the gateway ended with status {status} after SIGTERM"] if status else []
    rig.wait_healthy()
    # All at once, at the same index: one that stops in order would give the others work.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for server in rig.nodes.values():
            server.signal(number)
    for server in rig.nodes.values():
        server.kill()
    return wrong + compare(disks)


def told_secrets(servers: Iterable[Server], secrets: Sequence[str]) -> list[str]:
    """Logs that hold a secret, or the signature of a request."""
    forbidden = [*(text.encode() for text in secrets), b"Signature="]
    return [
        f"the log of {server.name} holds a secret"
        for server in servers
        if any(secret in server.log.read_bytes() for secret in forbidden)
    ]


def _keep(directory: Path, load: Load | None) -> Path:
    if load is not None:
        save(directory / "history.json", load.history.dump())
    return directory


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _summary(plan: Plan, history: History) -> str:
    outcomes = Counter(event.outcome.value for event in history.events)
    kinds = Counter(event.kind for event in history.events)
    lost = Counter(
        f"{event.kind} {event.status or event.note}"
        for event in history.events
        if event.outcome is Outcome.UNKNOWN
    )
    return (
        f"seed {plan.seed}: {len(history.events)} operations {dict(kinds)}, "
        f"{len(history.faults)} faults, outcomes {dict(outcomes)}, unanswered {dict(lost)}, "
        f"{longest_silence(history)}: no promise was broken"
    )


def longest_silence(history: History) -> str:
    """The longest time without an acknowledged write, and what was done to the cluster then."""
    acked = sorted(
        event.returned
        for event in history.events
        if event.outcome is Outcome.OK and event.kind in {*WRITES, "DELETE"}
    )
    if len(acked) < 2:
        return "hardly a write was acknowledged"
    end = max(range(1, len(acked)), key=lambda number: acked[number] - acked[number - 1])
    since, until = acked[end - 1], acked[end]
    during = [f.name for f in history.faults if f.began <= until and (f.ended or until) >= since]
    return (
        f"{until - since:.1f} s without a write from {since - history.started:.1f} s on "
        f"({', '.join(during) or 'no fault'})"
    )
