"""Operators of com.microsoft against ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from onnx_cases import Const, f32, model_of, run_file, save

import aotc
from aotc.errors import UnsupportedError
from aotc.frontend.onnx_reader import load_onnx

MICROSOFT = "com.microsoft"


class Case:
    """One node."""

    def __init__(
        self, op, *operands, outputs=1, tolerance=1e-5, domain=MICROSOFT, note="", **attrs
    ):
        self.op, self.operands, self.outputs = op, operands, outputs
        self.tolerance, self.domain, self.note, self.attrs = tolerance, domain, note, attrs

    def __str__(self):
        shown = ",".join(f"{k}={v}" for k, v in self.attrs.items() if not isinstance(v, list))
        return f"{self.op}-{self.note}-{shown}"

    def model(self):
        feeds, initializers, names = {}, {}, []
        for place, operand in enumerate(self.operands):
            names.append("" if operand is None else f"in{place}")
            if isinstance(operand, Const):
                initializers[names[-1]] = operand.values
            elif operand is not None:
                feeds[names[-1]] = operand
        outputs = [f"out{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, domain=self.domain, **self.attrs)
        model = model_of([node], feeds, outputs, initializers, 16)
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return model, feeds


def ort(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def assert_alike(found, wanted, tolerance):
    assert len(found) == len(wanted)
    for result, right in zip(found, wanted, strict=True):
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        if right.dtype.kind == "f":
            np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance)
        elif right.dtype.itemsize == 1:
            # a value half-way between two steps falls to either side
            apart = np.abs(result.astype(int) - right.astype(int))
            assert apart.max(initial=0) <= 1 and apart.mean() < 0.05
        else:
            np.testing.assert_array_equal(result, right)


def bytes_(*shape, seed=0, dtype=np.uint8):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def scale(value):
    return Const(np.float32(value))


def zero(value, dtype=np.uint8):
    return Const(dtype(value))


def quantised_pair(dtype):
    return (
        bytes_(2, 3, 5, dtype=dtype), scale(0.0317), zero(5, dtype),
        bytes_(3, 1, seed=1, dtype=dtype), scale(0.0571), zero(9, dtype),
    )  # fmt: skip


DENSE = [
    Case("Gelu", f32(2, 5)),
    Case("BiasGelu", f32(2, 5), f32(5, seed=1)),
    Case("FastGelu", f32(2, 3, 5)),
    Case("FastGelu", f32(2, 3, 5), f32(5, seed=1), note="bias"),
    Case("QuickGelu", f32(2, 5)),
    Case("QuickGelu", f32(2, 5), alpha=0.7),
    Case("FusedMatMul", f32(3, 4), f32(4, 5, seed=1), alpha=0.5),
    Case("FusedMatMul", f32(2, 4, 3), f32(2, 5, 4, seed=1), transA=1, transB=1),
    Case("FusedMatMul", f32(3, 2, 4), f32(2, 4, 5, seed=1), transBatchA=1),
    Case("FusedMatMul", f32(4, 2, 3), f32(5, 2, 4, seed=1), transBatchA=1, transA=1,
         transBatchB=1, transB=1),
    Case("TransposeMatMul", f32(4, 3), f32(4, 5, seed=1), transA=1, alpha=2.0),
    Case("FusedGemm", f32(3, 4), f32(5, 4, seed=1), f32(5, seed=2), transB=1, activation="Relu"),
    Case("FusedGemm", f32(3, 4), f32(4, 5, seed=1), f32(3, 1, seed=2), alpha=0.5, beta=2.0,
         activation="LeakyRelu", activation_alpha=0.2),
    *(
        Case("FusedConv", f32(1, 3, 6, 6), Const(f32(4, 3, 3, 3, seed=1)), f32(4, seed=2),
             activation=name, pads=[1, 1, 1, 1], **({"activation_params": given} if given else {}))
        for name, given in (("Relu", None), ("Tanh", None), ("Sigmoid", None), ("LeakyRelu", [0.1]),
                            ("Clip", [-1.0, 2.0]), ("HardSigmoid", [0.3, 0.4]))
    ),
    Case("FusedConv", f32(1, 4, 6, 6), Const(f32(4, 2, 3, 3, seed=1)), f32(4, seed=2),
         f32(1, 4, 4, 4, seed=3), activation="Relu", group=2, note="sum"),
]  # fmt: skip

NORMS = [
    Case("SkipLayerNormalization", f32(2, 3, 8), f32(2, 3, 8, seed=1), f32(8, seed=2),
         f32(8, seed=3), f32(8, seed=4), tolerance=1e-4),
    Case("SkipLayerNormalization", f32(2, 3, 8), f32(1, 3, 8, seed=1), f32(8, seed=2),
         epsilon=1e-3, tolerance=1e-4, note="stretched"),
    Case("SkipLayerNormalization", f32(2, 3, 8), f32(3, 8, seed=1), f32(8, seed=2), f32(8, seed=3),
         tolerance=1e-4, note="flat"),
    Case("SkipSimplifiedLayerNormalization", f32(2, 3, 8), f32(2, 3, 8, seed=1), f32(8, seed=2),
         f32(8, seed=3), tolerance=1e-4),
    Case("SimplifiedLayerNormalization", f32(2, 3, 8), f32(8, seed=1), domain="", epsilon=1e-3),
    Case("SimplifiedLayerNormalization", f32(2, 3, 8), f32(3, 8, seed=1), domain="", axis=1),
    Case("LayerNormalization", f32(2, 3, 8), f32(8, seed=1), f32(8, seed=2), domain=""),
    Case("EmbedLayerNormalization", bytes_(2, 4, dtype=np.int8).astype(np.int32) % 7 + 7,
         np.array([[0, 1, 1, 0], [1, 0, 0, 1]], np.int32), Const(f32(20, 8)),
         Const(f32(9, 8, seed=1)), Const(f32(2, 8, seed=2)), Const(f32(8, seed=3)),
         Const(f32(8, seed=4)), np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32), outputs=2,
         tolerance=1e-4),
    Case("EmbedLayerNormalization", np.array([[3, 5, 1], [2, 2, 6]], np.int32), None,
         Const(f32(8, 8)), Const(f32(9, 8, seed=1)), None, Const(f32(8, seed=3)),
         Const(f32(8, seed=4)), None, np.array([[0, 4, 2], [7, 1, 1]], np.int32), outputs=2,
         tolerance=1e-4, note="positions", epsilon=1e-4),
]  # fmt: skip

QUANTISED = [
    *(
        Case(op, *quantised_pair(dtype), scale(0.0931), zero(3, dtype), note=dtype.__name__)
        for op in ("QLinearAdd", "QLinearMul")
        for dtype in (np.uint8, np.int8)
    ),
    Case("QLinearSigmoid", bytes_(2, 9), scale(0.05), zero(120), scale(1 / 256), zero(0)),
    Case("QLinearLeakyRelu", bytes_(2, 9), scale(0.05), zero(120), scale(0.04), zero(90),
         alpha=0.3),
    Case("QLinearGlobalAveragePool", bytes_(2, 3, 5, 4), scale(0.05), zero(120), scale(0.03),
         zero(110), channels_last=0),
    Case("QLinearGlobalAveragePool", bytes_(2, 5, 4, 3), scale(0.05), zero(120), scale(0.03),
         zero(110), channels_last=1),
    Case("QLinearAveragePool", bytes_(1, 3, 6, 6), scale(0.05), zero(120), scale(0.05), zero(120),
         kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    Case("QLinearAveragePool", bytes_(1, 6, 6, 3), scale(0.05), zero(120), scale(0.05), zero(120),
         kernel_shape=[2, 2], channels_last=1),
    Case("QLinearConcat", scale(0.05), zero(100), bytes_(2, 3), scale(0.04), zero(90),
         bytes_(2, 4, seed=1), scale(0.06), zero(120), axis=1),
    Case("QLinearSoftmax", bytes_(2, 3, 5), scale(0.05), zero(120), scale(1 / 256), zero(0),
         axis=-1, opset=13),
    Case("QLinearSoftmax", bytes_(2, 3, 5), scale(0.05), zero(120), scale(1 / 256), zero(0),
         axis=1, opset=12),
    Case("QLinearWhere", f32(2, 3) > 0, bytes_(2, 3), scale(0.04), zero(90), bytes_(1, 3, seed=1),
         scale(0.06), zero(120), scale(0.05), zero(100)),
    Case("DynamicQuantizeMatMul", f32(3, 8), Const(bytes_(8, 5, seed=1)), scale(0.02), zero(117),
         f32(5, seed=2), tolerance=1e-4),
    Case("DynamicQuantizeMatMul", f32(2, 3, 8), Const(bytes_(8, 5, seed=1, dtype=np.int8)),
         Const(f32(5, seed=4, low=0.01, high=0.05)), tolerance=1e-4, note="columns"),
    Case("MatMulIntegerToFloat", bytes_(3, 8), Const(bytes_(8, 5, seed=1)), scale(0.03),
         scale(0.02), zero(100), zero(120), f32(5, seed=2), tolerance=1e-4),
    Case("MatMulIntegerToFloat", bytes_(3, 8), Const(bytes_(8, 5, seed=1, dtype=np.int8)),
         scale(0.03), Const(f32(5, seed=3, low=0.01, high=0.05)), tolerance=1e-4, note="columns"),
    Case("QGemm", bytes_(3, 8), scale(0.03), zero(100), Const(bytes_(5, 8, seed=1)), scale(0.02),
         zero(120), Const(np.arange(5, dtype=np.int32) * 300), scale(0.5), zero(128), transB=1),
    Case("QGemm", bytes_(3, 8), scale(0.03), zero(100), Const(bytes_(8, 5, seed=1)), scale(0.02),
         zero(120), alpha=0.5, tolerance=1e-4, note="floats"),
    *(
        Case("MatMulNBits", f32(3, 40), Const(bytes_(6, 2, 32 * bits // 8, seed=1)),
             Const(f32(12, seed=2, low=0.01, high=0.1)), points, None, bias, K=40, N=6, bits=bits,
             block_size=32, tolerance=1e-4, note=note)
        for bits, points, bias, note in (
            (4, None, None, "middle"),
            (4, Const(bytes_(6, seed=3)), None, "packed"),
            (4, Const(f32(12, seed=3, low=5, high=9)), None, "floats"),
            (4, None, f32(6, seed=4), "bias"),
            (8, Const(bytes_(12, seed=3)), None, "bytes"),
            (8, None, None, "bytes, middle"),
        )
    ),
    *(
        Case("MatMulNBits", f32(2, 200), Const(bytes_(9, -(-200 // block), block * bits // 8)),
             Const(f32(9 * -(-200 // block), seed=2, low=0.01, high=0.1)), points, K=200, N=9,
             bits=bits, block_size=block, tolerance=1e-4, note=f"{bits} bits, blocks of {block}")
        for bits, block, points in (
            (4, 16, None), (4, 64, None), (4, 128, Const(bytes_(9, seed=3))), (8, 128, None),
            (2, 64, None),
        )
    ),
]  # fmt: skip


def rotation(positions, half):
    angle = np.arange(positions)[:, None] / 10 ** np.linspace(0, 2, half)[None]
    return Const(np.cos(angle).astype(np.float32)), Const(np.sin(angle).astype(np.float32))


MASKS = {
    "none": None,
    "keys": np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32),
    "ends": np.array([3, 2], np.int32),
    "spans": np.array([4, 3, 1, 0], np.int32),
    "pairs": np.tril(np.ones((2, 4, 4), np.int32)),
}
ATTENTION = [
    *(
        Case("Attention", f32(2, 4, 6), Const(f32(6, 24, seed=1, low=-1, high=1)),
             Const(f32(24, seed=2)), mask, num_heads=2, tolerance=1e-4, note=note)
        for note, mask in MASKS.items()
    ),
    Case("Attention", f32(2, 4, 6), Const(f32(6, 24, seed=1, low=-1, high=1)),
         Const(f32(24, seed=2)), num_heads=2, unidirectional=1, scale=0.3, tolerance=1e-4),
    Case("Attention", f32(2, 4, 6), Const(f32(6, 20, seed=1, low=-1, high=1)),
         Const(f32(20, seed=2)), None, None, f32(1, 2, 4, 4, seed=5), num_heads=2,
         qkv_hidden_sizes=[8, 8, 4], tolerance=1e-4, note="bias"),
    Case("Attention", f32(2, 3, 6), Const(f32(6, 24, seed=1, low=-1, high=1)),
         Const(f32(24, seed=2)), None, f32(2, 2, 2, 5, 4, seed=3), num_heads=2, unidirectional=1,
         outputs=2, tolerance=1e-4, note="past"),
    Case("MultiHeadAttention", f32(2, 4, 8), f32(2, 5, 8, seed=1), f32(2, 5, 8, seed=2),
         num_heads=2, tolerance=1e-4),
    Case("MultiHeadAttention", f32(2, 4, 8), f32(2, 5, 8, seed=1), f32(2, 5, 6, seed=2),
         f32(22, seed=3), np.array([[1, 1, 1, 1, 0], [1, 0, 1, 0, 0]], np.int32),
         f32(2, 2, 4, 5, seed=4), num_heads=2, scale=0.4, tolerance=1e-4, note="everything"),
    Case("MultiHeadAttention", f32(2, 4, 8), f32(2, 4, 8, seed=1), f32(2, 4, 8, seed=2), None,
         None, None, f32(2, 2, 3, 4, seed=3), f32(2, 2, 3, 4, seed=4), num_heads=2, outputs=3,
         unidirectional=1, tolerance=1e-4, note="past"),
    Case("MultiHeadAttention", f32(2, 4, 8), f32(2, 2, 5, 4, seed=1), f32(2, 2, 5, 4, seed=2),
         num_heads=2, tolerance=1e-4, note="heads apart"),
    Case("RotaryEmbedding", f32(2, 3, 8), np.array([2], np.int64), *rotation(9, 2)),
    Case("RotaryEmbedding", f32(2, 3, 8), np.array([[0, 4, 1], [8, 2, 2]], np.int64),
         *rotation(9, 2), interleaved=1),
    Case("RotaryEmbedding", f32(2, 2, 3, 8), np.array([1], np.int64), *rotation(9, 4),
         note="heads apart"),
    Case("RotaryEmbedding", f32(2, 3, 16), np.array([1], np.int64), *rotation(9, 2), num_heads=2,
         rotary_embedding_dim=4),
]  # fmt: skip


def grouped(length, past, last, total, packed=False, **attrs):
    size, count, kept = 16, 4, 2
    q, k, v = (f32(2, length, n * size, seed=i) for i, n in enumerate((count, kept, kept)))
    cache = (f32(2, kept, past, size, seed=3), f32(2, kept, past, size, seed=4))
    inputs = (np.concatenate([q, k, v], 2), None, None) if packed else (q, k, v)
    tables = rotation(16, size // 2) if attrs.get("do_rotary") else ()
    if not past:
        cache = (None, None)
    return Case("GroupQueryAttention", *inputs, *cache, np.array(last, np.int32),
                Const(np.array(total, np.int32)), *tables, num_heads=count, kv_num_heads=kept,
                outputs=3, tolerance=1e-4, note=f"{length}+{past}", **attrs)  # fmt: skip


GROUPED = [
    grouped(4, 0, [3, 3], 4),
    grouped(4, 0, [3, 3], 4, packed=True, do_rotary=1),
    grouped(1, 5, [5, 5], 6, do_rotary=1),
    grouped(1, 5, [5, 5], 6, do_rotary=1, rotary_interleaved=1, scale=0.2),
    grouped(5, 0, [4, 4], 5, local_window_size=2),
    grouped(5, 0, [4, 4], 5, softcap=2.0),
]

CASES = DENSE + NORMS + QUANTISED + ATTENTION + GROUPED


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnx_runtime(case, tmp_path):
    model, feeds = case.model()
    assert_alike(run_file(save(model, tmp_path), feeds), ort(model, feeds), case.tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_machine_code_agrees_with_onnx_runtime(case, tmp_path):
    model, feeds = case.model()
    found = list(aotc.compile(save(model, tmp_path)).run_dict(feeds).values())
    assert_alike(found, ort(model, feeds), max(case.tolerance, 1e-4))


def test_a_cache_with_room_takes_new_positions_at_run_time(tmp_path):
    """The total length is an input: what is kept has the past's room, whatever the total."""
    case = grouped(1, 8, [3, 5], 6, do_rotary=1)
    operands = list(case.operands)
    operands[6] = np.array(6, np.int32)
    open_case = Case(case.op, *operands, outputs=3, **case.attrs)
    model, feeds = open_case.model()
    found = run_file(save(model, tmp_path), feeds)
    wanted = ort(model, feeds)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-4)
    for kept, right in zip(found[1:], wanted[1:], strict=True):
        assert kept.shape == (2, 2, 8, 16)
        for batch, last in enumerate((3, 5)):
            np.testing.assert_allclose(
                kept[batch, :, : last + 1], right[batch, :, : last + 1], rtol=1e-5, atol=1e-5
            )


def test_channels_last_is_conv_between_transposes(tmp_path):
    x, w = f32(1, 6, 5, 4), Const(f32(4, 2, 3, 3, seed=1))
    wanted = ort(*Case("Conv", x.transpose(0, 3, 1, 2).copy(), w, domain="", group=2).model())[0]
    model, feeds = Case("NhwcConv", x, w, group=2).model()
    (found,) = run_file(save(model, tmp_path), feeds)
    np.testing.assert_allclose(found, wanted.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", ["one scale", "a scale each"])
def test_dynamic_lstm(weights, tmp_path):
    hidden, features, sides = 5, 4, 2
    shape = (sides, 4 * hidden) if weights == "a scale each" else (sides,)
    scales = [Const(f32(*shape, seed=i, low=0.005, high=0.01)) for i in (6, 7)]
    points = [Const(bytes_(*shape, seed=i) // 8 + 110) for i in (8, 9)]
    if weights == "a scale each":
        points = [Const(np.full(shape, 128, np.uint8))] * 2
    case = Case(
        "DynamicQuantizeLSTM", f32(6, 2, features),
        Const(bytes_(sides, features, 4 * hidden, seed=1)),
        Const(bytes_(sides, hidden, 4 * hidden, seed=2)),
        Const(f32(sides, 8 * hidden, seed=3, low=-1, high=1)), None,
        f32(sides, 2, hidden, seed=4, low=-1, high=1), f32(sides, 2, hidden, seed=5), None,
        scales[0], points[0], scales[1], points[1],
        outputs=3, hidden_size=hidden, direction="bidirectional",
    )  # fmt: skip
    model, feeds = case.model()
    # a rounding that falls to the other side is half a percent of a factor
    assert_alike(run_file(save(model, tmp_path), feeds), ort(model, feeds), 0.02)


@pytest.mark.parametrize(
    "case, reason",
    [
        (Case("MoE", f32(2, 3)), "MoE"),
        (Case("Attention", f32(2, 4, 6), f32(6, 24), num_heads=2, do_rotary=1), "rotation"),
        (Case("MultiHeadAttention", f32(2, 4, 2, 3, 4), num_heads=2), "packed"),
        (Case("MatMulNBits", f32(3, 32), bytes_(6, 1, 16), f32(6), K=32, N=6, bits=4,
              block_size=32), "run time"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_missing_is_said(case, reason, tmp_path):
    model, _ = case.model()
    with pytest.raises(UnsupportedError, match=reason):
        load_onnx(save(model, tmp_path))
