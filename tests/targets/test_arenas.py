"""The arenas of quantised networks on a microcontroller, by default."""

import pytest

from aotc.config import Options
from aotc.driver import plan_stages
from aotc.memory.check import check_plan
from bench.eight_bits import quantise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most_bytes"), [("tiny_vww_mbv1", 40_000), ("tiny_ic_resnet8", 50_000)]
)
def test_quantised_networks_fit_without_more_work(name, most_bytes, tmp_path):
    build = plan_stages(quantise(name, tmp_path), Options(target="cortex-m4"))
    check_plan(build.program, build.plan)
    assert build.plan.arena_bytes < most_bytes
    assert build.plan.gap <= 1.02
