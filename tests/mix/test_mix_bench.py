from __future__ import annotations

import planning
import pytest


def test_the_benchmark_of_planning_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    planning.time_planning(2000)
    planning.compare_fill(800)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| web documents | ") for line in lines)
    shares = [float(line.split("|")[-2]) for line in lines if " images |" in line]
    assert len(shares) == 35
    assert all(0.5 < share <= 1.0 for share in shares)
