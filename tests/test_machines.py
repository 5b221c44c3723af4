"""Options in, the targets that a model is lowered for out."""

import pytest

from aotc.config import Options
from aotc.errors import UsageError
from aotc.machines import targets_of
from aotc.regions import read_regions


def cpus(**options):
    return [target.cpu for target in targets_of(Options(**options))]


def test_a_processor_is_one_target():
    (target,) = targets_of(Options(target="aarch64", opt="size"))
    assert (target.name, target.compact) == ("aarch64", True)


def test_gpus_are_a_target_for_each_set_of_instructions():
    assert cpus(target="cuda") == ["sm_80"]
    assert cpus(target="cuda", arch="sm_90,sm_86") == ["sm_86"]
    assert cpus(target="cuda", arch="sm_90a") == ["sm_90a"]
    assert cpus(target="cuda", arch="sm_90a,sm_90,sm_80,sm_90a") == ["sm_80", "sm_90a"]
    precisions = {t.precision for t in targets_of(Options(target="cuda", arch="sm_80,sm_90a"))}
    assert precisions == {"tf32"}
    assert targets_of(Options(target="cuda", precision="f16"))[0].precision == "f16"


def test_what_does_not_go_together_is_refused():
    flash = read_regions(["flash=1M:ro", "sram=64K"])
    with pytest.raises(UsageError, match="no sections for weights"):
        targets_of(Options(target="wasm32", regions=flash))
    with pytest.raises(UsageError, match="no CUDA driver"):
        targets_of(Options(target="cuda", host="cortex-m4"))
