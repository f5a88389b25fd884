"""What the recorder wrote, counted by capability."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.s3suite.capability import capability_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test. A test whose set-up or tear-down failed has not passed."""

    name: str
    capability: str
    outcome: str  # passed, failed, skipped
    reason: str


def read_outcomes(path: Path) -> list[Outcome]:
    """One outcome for each test, the worst that was recorded of it."""
    found: dict[str, Outcome] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        name, outcome = record["name"], record["outcome"]
        before = found.get(name)
        if before is not None and (before.outcome == "failed" or outcome == "passed"):
            continue
        found[name] = Outcome(
            name=name,
            capability=capability_of(name, set(record["markers"])),
            outcome=outcome,
            reason=record["reason"],
        )
    return list(found.values())


def render_counts(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: passed of all, by capability."""
    total = Counter(outcome.capability for outcome in outcomes)
    passed = Counter(o.capability for o in outcomes if o.outcome == "passed")
    lines = ["| capability | passed | of |", "|---|---|---|"]
    lines += [f"| {name} | {passed[name]} | {total[name]} |" for name in sorted(total)]
    lines.append(f"| **all** | **{passed.total()}** | **{total.total()}** |")
    return "\n".join(lines)


def render_failures(outcomes: Sequence[Outcome]) -> str:
    """What did not pass and why, grouped by capability."""
    failed = sorted(
        (o for o in outcomes if o.outcome != "passed"), key=lambda o: (o.capability, o.name)
    )
    return "\n".join(f"{o.capability}: {o.name} {o.outcome}: {o.reason}" for o in failed)
