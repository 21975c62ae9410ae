"""Deaths at a sample of single instructions; tests/crash/single_step.py takes more, or all."""

from __future__ import annotations

import platform

import pytest
import single_step

STATES = 8


@pytest.mark.skipif(
    platform.machine() != "x86_64",
    reason="a stepped processor loses its exclusive monitor, so atomic loops never end",
)
@pytest.mark.parametrize("operation", single_step.OPERATIONS)
def test_death_at_an_instruction(operation: str) -> None:
    try:
        length = single_step.sample(operation, STATES, seed=1)
    except single_step.PtraceRefused as refused:
        pytest.skip(str(refused))
    assert 1000 < length < single_step.LONGEST
