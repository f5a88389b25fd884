"""What a holder says of its own speed."""

from __future__ import annotations

from astra.constants import MIB
from node.services.blobs import SpeedMeter


def test_speed_is_a_moving_average() -> None:
    meter = SpeedMeter()
    assert meter.mib_per_s(0.0) == 0.0
    meter.note(size=MIB, seconds=0.01, now_s=1.0)
    meter.note(size=MIB, seconds=0.1, now_s=2.0)
    assert 10 < meter.mib_per_s(2.0) < 100


def test_speed_measured_long_ago_is_forgotten_so_that_a_slow_node_gets_another_chance() -> None:
    meter = SpeedMeter()
    meter.note(size=MIB, seconds=10.0, now_s=1.0)
    assert meter.mib_per_s(20.0) == 0.1
    assert meter.mib_per_s(60.0) == 0.0
    meter.note(size=MIB, seconds=0.01, now_s=61.0)
    assert round(meter.mib_per_s(61.0)) == 100


def test_small_reads_are_no_measurement() -> None:
    meter = SpeedMeter()
    meter.note(size=1000, seconds=10.0, now_s=1.0)
    assert meter.mib_per_s(1.0) == 0.0
