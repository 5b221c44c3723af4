"""Objects whose model is run in one way on some devices and in another on others."""

import gc

import numpy as np
import pytest
from fake_gpu import build_driver, compile_for_fake, link
from handmade_device import WEIGHTS, exact_variant, plain_variant, write_object
from test_cuda_loader import HEAD, build, run
from test_device_sizes import address, create, net, outputs_of, rows

import aotc
from aotc.codegen.signature import Status
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda.driver import Driver
from aotc.cuda.model import DeviceModel

pytestmark = pytest.mark.requires_cc

LATER_DRIVER = 12080

#: Which variant runs: the one that makes tensor maps is the plain one.
WHICH = HEAD + """
int main(void)
{
    float y[8] = {0};
    open_fake();
    CHECK(net_run(x, y, NULL) == NET_OK && is_right(y))
    printf("%s %ld\\n", get("MAP_ENCODINGS") ? "plain" : "exact", get("UPLOADED"));
    CHECK(net_release() == NET_OK && get("LIVE") == 0)
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = write_object(
        tmp_path_factory.mktemp("variants"), more=[exact_variant(LATER_DRIVER)]
    )
    build_driver(folder)
    return build(folder, "which", WHICH)


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({"ARCH": 80}, "plain"),
        ({"ARCH": 86}, "plain"),
        ({"ARCH": 90}, "exact"),
        ({"ARCH": 100}, "plain"),
        # a driver too old for the better one, and one that refuses its cubin (the only image)
        ({"ARCH": 90, "VERSION": LATER_DRIVER - 10}, "plain"),
        ({"ARCH": 90, "FAIL_AT": 9, "FAIL_WITH": 200}, "plain"),
    ],
)
def test_the_device_decides_which_variant_runs(program, settings, variant):
    said = run(program, program.parent, **{"VERSION": 13000, **settings})
    assert said == f"{variant} {WEIGHTS.nbytes}\n"  # its own weights and no others


def compile_both(**options):
    """Two variants of the same kernels, as if they were not the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceModel, "does_the_same", lambda self, other: False)
        return compile_for_fake(net, arch="sm_80,sm_90a", dims={"n": [1, 3]}, **options)


@pytest.mark.slow
def test_variants_in_several_sizes_share_constants(gpu, monkeypatch, tmp_path):
    model, plain = compile_both(), aotc.compile(net, name="net", dims={"n": [1, 3]})
    alone = compile_for_fake(net, dims={"n": [1, 3]})
    assert model.manifest["weights"] == alone.manifest["weights"]
    for about in model.manifest["cuda"]["variants"]:
        assert about["constants_bytes"] == alone.manifest["weights"]["bytes"]
        assert about["arena_bytes"] == max(v.plan.arena_bytes for v in model.variants)
    assert [about["ptx"] for about in model.manifest["cuda"]["variants"]] == ["sm_80", "sm_90a"]
    assert "sm_80" in model.as_text("ptx") and "sm_90a" in model.as_text("ptx")
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    library = link(model, tmp_path)
    for arch, variant in ((80, 0), (90, 1)):
        gpu.set("ARCH", arch)
        gpu.learn(model.device_object.variants[variant].model)
        context = create(library)
        for count in (3, 1):
            wanted = [array.tobytes() for array in plain.bind(rows(count))()]
            assert [array.tobytes() for array in model.bind(rows(count))()] == wanted
            found = outputs_of(count)
            run_host = getattr(library, f"net_run_host_{count}")
            status = run_host(context, address(rows(count)), *map(address, found))
            assert status == Status.OK
            assert [array.tobytes() for array in found] == wanted
        assert model.context().model is model.device_object.variants[variant].model
        assert library.net_destroy(context) == Status.OK
        model.release()
        gc.collect()


def product(x):
    """In tf32, sm_90a reads both operands by tensor maps."""
    w = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    return (x + 1) @ w


@pytest.mark.slow
def test_kernels_of_sm_90a_run_where_they_can(gpu, monkeypatch, tmp_path):
    graph = aotc.trace(product, aotc.spec((128, 64), "float32"))
    model = compile_for_fake(graph, arch="sm_80,sm_90a", precision="tf32")
    plain, exact = (variant.model for variant in model.device_object.variants)
    assert not any(kernel.maps for kernel in plain.kernels)
    assert sum(len(kernel.maps) for kernel in exact.kernels) == 2
    x = np.random.default_rng(1).standard_normal((128, 64)).astype(np.float32)
    wanted = product(x.astype(np.float64))
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    library = link(model, tmp_path)
    for arch, variant in ((80, plain), (90, exact)):
        gpu.set("ARCH", arch)
        gpu.learn(variant)
        context, found = create(library), np.zeros((128, 128), np.float32)
        assert library.net_run_host(context, address(x), address(found)) == Status.OK
        for result in (found, model(x)):
            assert np.abs(result - wanted).max() <= 2e-3 * np.abs(wanted).max()
        assert bool(gpu.get("MAP_ENCODINGS")) == (variant is exact)
        assert library.net_destroy(context) == Status.OK
        model.release()
        gc.collect()


def test_what_does_the_same_is_in_the_object_once():
    x = aotc.spec((4, 8), "float32")
    model = compile_for_fake(aotc.trace(lambda x: np.exp(x) + 1, x), arch="sm_80,sm_90a,sm_90")
    (variant,) = model.device_object.variants
    assert variant.code.arch == "sm_80"
    models = plain_variant().model, plain_variant().model
    assert models[0].does_the_same(models[1])
    assert not models[0].does_the_same(exact_variant(12000).model)
