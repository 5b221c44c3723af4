"""ATen operators by family: one exported module for each, its results in machine code against
torch's own."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
)
F = torch.nn.functional

from tests.importers.torch_agreement import Family, agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow


def test_functions_of_one_number():
    x = seeded(3, 5)
    functions = [
        torch.abs, torch.exp, torch.expm1, torch.neg, torch.sin, torch.cos, torch.tan, torch.sinh,
        torch.cosh, torch.tanh, torch.atan, torch.asinh, torch.sigmoid, torch.erf, torch.erfc,
        torch.floor, torch.ceil, torch.round, torch.trunc, torch.sign, torch.square, torch.exp2,
        torch.reciprocal, torch.isnan, torch.isinf, torch.isfinite, torch.logical_not, torch.frac,
        F.relu, F.relu6, F.silu, F.gelu, F.mish, F.softplus, F.elu, F.selu, F.celu, F.hardswish,
        F.hardsigmoid, F.hardtanh, F.leaky_relu, F.logsigmoid, F.softsign, F.tanhshrink,
        F.softshrink, F.hardshrink, lambda x: F.threshold(x, 0.5, 20.0),
        lambda x: F.gelu(x, approximate="tanh"), lambda x: torch.clamp(x, -0.5, 0.5),
        lambda x: x.clamp(min=0.25), lambda x: x**2, lambda x: x**3, lambda x: 2.0**x,
        lambda x: torch.round(x, decimals=1), lambda x: F.glu(x[:, :4], -1),
        lambda x: torch.nan_to_num(x / (x > 0)), torch.deg2rad, lambda x: x.sgn(),
    ]  # fmt: skip
    agree(Family(functions), (x,), rtol=4e-6)


def test_functions_of_positive_numbers():
    x = seeded(4, 3, low=0.1, high=0.9)
    functions = [
        torch.log, torch.log2, torch.log10, torch.log1p, torch.sqrt, torch.rsqrt, torch.asin,
        torch.acos, torch.atanh, torch.logit, lambda x: torch.acosh(x + 1), lambda x: x**0.5,
        lambda x: x**-1, lambda x: x**1.7, lambda x: x**-0.5,
    ]  # fmt: skip
    agree(Family(functions), (x,), rtol=4e-6)


def test_operators_of_two_tensors_promote_as_torch_does():
    a, b = seeded(3, 4), seeded(4)
    n, small = seeded(3, 4, dtype=torch.int64), seeded(4, dtype=torch.uint8, low=1, high=5)
    functions = [
        lambda a, b, n, s: a + b, lambda a, b, n, s: torch.add(a, b, alpha=2.5),
        lambda a, b, n, s: a - b, lambda a, b, n, s: 3 - a, lambda a, b, n, s: a * n,
        lambda a, b, n, s: n / s, lambda a, b, n, s: n // s, lambda a, b, n, s: n % s,
        lambda a, b, n, s: torch.div(a, b, rounding_mode="floor"),
        lambda a, b, n, s: torch.div(n, s, rounding_mode="trunc"),
        lambda a, b, n, s: torch.remainder(a, b), lambda a, b, n, s: torch.fmod(a, b),
        lambda a, b, n, s: n + 1.5, lambda a, b, n, s: n + 1, lambda a, b, n, s: s * 300,
        lambda a, b, n, s: a > n, lambda a, b, n, s: n <= 0.5, lambda a, b, n, s: n == s,
        lambda a, b, n, s: torch.maximum(a, b), lambda a, b, n, s: torch.minimum(n, s),
        lambda a, b, n, s: torch.atan2(a, b), lambda a, b, n, s: torch.where(n > 0, a, b),
        lambda a, b, n, s: torch.where(n > 0, n, 2.5), lambda a, b, n, s: n & s,
        lambda a, b, n, s: ~n | s, lambda a, b, n, s: n ^ 3, lambda a, b, n, s: s << 1,
        lambda a, b, n, s: s >> 1, lambda a, b, n, s: torch.logical_and(a > 0, n),
        lambda a, b, n, s: a.abs() ** b, lambda a, b, n, s: a.to(torch.int32),
        lambda a, b, n, s: (a > 0).to(torch.float64) + n, lambda a, b, n, s: torch.hypot(a, b),
        lambda a, b, n, s: torch.clamp(a, b.min(), b.max()),
        lambda a, b, n, s: torch.lerp(a, b, 0.3),
        lambda a, b, n, s: torch.addcmul(a, a, b, value=0.5), lambda a, b, n, s: a.double() + b,
    ]  # fmt: skip
    agree(Family(functions), (a, b, n, small))


def test_reductions():
    x, n = seeded(2, 3, 4), seeded(2, 3, 4, dtype=torch.int32, low=-5, high=5)
    functions = [
        lambda x, n: x.sum(), lambda x, n: x.sum((0, 2)), lambda x, n: n.sum(1, keepdim=True),
        lambda x, n: x.mean(), lambda x, n: x.mean(-1), lambda x, n: x.prod(1),
        lambda x, n: n.prod(), lambda x, n: x.var(), lambda x, n: x.var(1, correction=0),
        lambda x, n: x.std(-1, keepdim=True), lambda x, n: x.amax((0, 1)), lambda x, n: n.amin(2),
        lambda x, n: x.max(), lambda x, n: n.min(), lambda x, n: x.max(1),
        lambda x, n: x.min(2, keepdim=True), lambda x, n: x.argmax(), lambda x, n: n.argmin(1),
        lambda x, n: (n > 0).any(), lambda x, n: (n > -4).all(1), lambda x, n: n.any(2),
        lambda x, n: x.cumsum(1), lambda x, n: n.cumsum(2), lambda x, n: x.cumprod(2),
        lambda x, n: x.logsumexp(1), lambda x, n: x.softmax(1), lambda x, n: x.log_softmax(-1),
        lambda x, n: x.norm(), lambda x, n: torch.linalg.vector_norm(x, 1, 2),
        lambda x, n: torch.linalg.vector_norm(x, float("inf"), (0, 1)),
        lambda x, n: torch.sort(x, 1),
        lambda x, n: torch.sort(n, dim=2, descending=True, stable=True),
        lambda x, n: torch.topk(x, 2, 2), lambda x, n: torch.topk(x, 1, 1, largest=False),
        lambda x, n: torch.argsort(x, -1), lambda x, n: x.median(),
        lambda x, n: torch.var_mean(x, 1),
        lambda x, n: F.normalize(x, dim=1), lambda x, n: F.cosine_similarity(x, x * x + 1, 1),
        lambda x, n: torch.cdist(x[0], x[1]), lambda x, n: torch.diff(x, dim=1),
        lambda x, n: n.count_nonzero(1),
    ]  # fmt: skip
    agree(Family(functions), (x, n), rtol=1e-5)


def test_movement():
    x = seeded(2, 3, 4)
    functions = [
        lambda x: x.reshape(6, 4), lambda x: x.view(2, -1), lambda x: x.permute(2, 0, 1),
        lambda x: x.transpose(0, 1), lambda x: x.unsqueeze(1), lambda x: x[:1].squeeze(0),
        lambda x: x[:, 1], lambda x: x[..., 1:3], lambda x: x[:, ::2], lambda x: x[:, -2:-1],
        lambda x: x[5:], lambda x: x.expand(5, 2, 3, 4), lambda x: torch.cat([x, x * 2], 1),
        lambda x: torch.stack([x, -x], -1), lambda x: x.split(3, 2), lambda x: x.chunk(2, 2),
        lambda x: x.unbind(1), lambda x: x.flip(0, 2), lambda x: x.roll((1, -1), (0, 2)),
        lambda x: x.repeat(2, 1, 3), lambda x: x.repeat_interleave(2, 1), lambda x: x.tile(2, 2),
        lambda x: x.diagonal(0, 1, 2), lambda x: x.tril(), lambda x: x.triu(1),
        lambda x: F.pad(x, (1, 2)), lambda x: F.pad(x, (1, -1, 0, 2), value=3.5),
        lambda x: F.pad(x, (1, 2), mode="reflect"), lambda x: F.pad(x, (2, 1), mode="replicate"),
        lambda x: F.pad(x, (1, 1), mode="circular"), lambda x: x.flatten(1),
        lambda x: torch.zeros_like(x), lambda x: torch.full((2, 2), 7) + x[0, :2, :2],
        lambda x: torch.arange(4) * x, lambda x: torch.linspace(0, 1, 4) + x,
        lambda x: torch.eye(4) @ x.mT, lambda x: x.masked_fill(x > 0, 9.0),
        lambda x: torch.as_strided(x, (2, 2), (4, 1), 3), lambda x: x.swapaxes(0, 2).contiguous(),
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
        lambda x: x.unflatten(2, (2, 2)),
        lambda x: x.unfold(2, 2, 1), lambda x: F.pixel_shuffle(x.reshape(1, 4, 3, 2), 2),
        lambda x: torch.rot90(x, 1, (1, 2)), lambda x: torch.block_diag(x[0], x[1]),
        lambda x: torch.movedim(x, 0, 2), lambda x: torch.narrow(x, 1, 1, 2),
        lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 2),
        lambda x: torch.slice_scatter(x, x[:, :1] * 3, 1, 1, 2), lambda x: x.mT,
        lambda x: torch.slice_scatter(x, x[:, :2] * 3, 1, 0, 3, 2),
        lambda x: torch.tensor([1.0, 2]),
    ]  # fmt: skip
    agree(Family(functions), (x,), rtol=1e-6)


def test_indices():
    x = seeded(5, 4)
    i = torch.tensor([3, 0, -1])
    j = torch.tensor([[0, 2, 3], [1, 1, 0]])

    def in_place(x, i, j):
        y = x.clone()
        y[1:3, ::2] = 5.0
        y[i, 0] += 2
        y[y > 1.5] = 0
        return y

    functions = [
        lambda x, i, j: x[i], lambda x, i, j: x[:, j], lambda x, i, j: x[i, i],
        lambda x, i, j: x[i][:, i], lambda x, i, j: x.gather(1, j), lambda x, i, j: x[i.abs(), 1:],
        lambda x, i, j: torch.index_select(x, 1, i.abs()),
        lambda x, i, j: x[:2].take_along_dim(j, 1),
        lambda x, i, j: torch.zeros(5, 4).scatter(1, j, x), lambda x, i, j: x.scatter(1, j, 2.5),
        lambda x, i, j: x.scatter_add(0, j, x), in_place,
        lambda x, i, j: x.scatter_reduce(1, j, x, "amax"),
        lambda x, i, j: x.scatter_reduce(0, j, x, "prod", include_self=False),
        lambda x, i, j: x.index_put((i,), x[:3], accumulate=True),
        lambda x, i, j: x.index_add(0, i.abs(), x[:3]),
        lambda x, i, j: x.index_copy(0, i.abs(), x[:3]),
        lambda x, i, j: F.embedding(j, x), lambda x, i, j: F.one_hot(j, 4),
        lambda x, i, j: x.masked_scatter(x > 0, x.flip(0)),
        lambda x, i, j: x.index_fill(0, i.abs(), 1.5),
        lambda x, i, j: x[[2, 0]], lambda x, i, j: x[None, :, j, None],
    ]  # fmt: skip
    agree(Family(functions), (x, i, j))


def test_products_and_norms():
    x, y = seeded(2, 3, 8), seeded(2, 8, 5)
    functions = [
        lambda x, y: x @ y, lambda x, y: torch.bmm(x, y), lambda x, y: x[0] @ y[0],
        lambda x, y: x[0, 0] @ y[0], lambda x, y: torch.mv(x[0], y[0, :, 0]),
        lambda x, y: torch.dot(x[0, 0], y[0, :, 0]), lambda x, y: torch.outer(x[0, 0], y[0, 0]),
        lambda x, y: torch.einsum("bij,bjk->kbi", x, y), lambda x, y: torch.kron(x[0], y[0]),
        lambda x, y: torch.addmm(x[0, :, :5], x[0], y[0], beta=0.5, alpha=2),
        lambda x, y: torch.baddbmm(x[:, :, :5], x, y),
        lambda x, y: torch.tensordot(x, y, ([2], [1])),
        lambda x, y: F.linear(x, y[0].T, y[0, 0]), lambda x, y: F.layer_norm(x, (3, 8)),
        lambda x, y: F.layer_norm(x, (8,), x[0, 0], x[0, 1], 1e-3),
        lambda x, y: F.rms_norm(x, (8,)),
        lambda x, y: F.group_norm(y, 4, y[0, :, 0], y[0, :, 1]), lambda x, y: F.instance_norm(y),
        lambda x, y: F.batch_norm(y, y[0, :, 0], y[1, :, 1].abs() + 0.5, y[0, :, 2], y[0, :, 3]),
        lambda x, y: F.batch_norm(y, None, None, training=True),
        lambda x, y: F.local_response_norm(y, 3),
        lambda x, y: F.bilinear(x, x, torch.ones(4, 8, 8)),
        lambda x, y: F.prelu(y, y[0, :, 0]),
        lambda x, y: F.scaled_dot_product_attention(x, x, x * 2),
        lambda x, y: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        lambda x, y: F.scaled_dot_product_attention(x, x, x, attn_mask=x[:, :, :3] > -0.5),
        lambda x, y: F.scaled_dot_product_attention(x, x, x, attn_mask=x[0, :, :3], scale=0.3),
    ]  # fmt: skip
    agree(Family(functions), (x, y), rtol=1e-5, atol=1e-5)


def test_convolutions():
    x, w = seeded(1, 4, 9, 8), seeded(6, 4, 3, 3)
    t, v = seeded(1, 4, 10), seeded(1, 2, 5, 6, 4)
    functions = [
        lambda x, w, t, v: F.conv2d(x, w), lambda x, w, t, v: F.conv2d(x, w, w[:, 0, 0, 0], 2, 1),
        lambda x, w, t, v: F.conv2d(x, w, padding="same", dilation=2),
        lambda x, w, t, v: F.conv2d(x, w[:, :2], groups=2),
        lambda x, w, t, v: F.conv2d(x, w[:4, :1], padding=(1, 0), groups=4),
        lambda x, w, t, v: F.conv1d(t, w[:, :, 0], stride=2), lambda x, w, t, v: F.conv2d(x[0], w),
        lambda x, w, t, v: F.conv3d(v, w.reshape(4, 2, 3, 3, 3), padding=1),
        lambda x, w, t, v: F.conv_transpose2d(x, w[:4], stride=2, padding=1, output_padding=1),
        lambda x, w, t, v: F.conv_transpose2d(x, w[:4, :2], groups=2, dilation=2),
        lambda x, w, t, v: F.conv_transpose1d(t, w[:4, :, 0], stride=3),
        lambda x, w, t, v: F.fold(F.unfold(x, 3, padding=1, stride=2), (9, 8), 3, padding=1,
                                  stride=2),
    ]  # fmt: skip
    agree(Family(functions), (x, w, t, v), rtol=1e-5, atol=1e-5)


def test_windows_and_resampling():
    x = seeded(1, 2, 7, 9)
    functions = [
        lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, dilation=2, return_indices=True),
        lambda x: F.max_pool1d(x[0], 3), lambda x: F.max_pool3d(x, 2),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, (2, 3), count_include_pad=False),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3), lambda x: F.avg_pool1d(x[0], 2),
        lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
        lambda x: F.adaptive_avg_pool1d(x[0], 3), lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.interpolate(x, scale_factor=2), lambda x: F.interpolate(x, (5, 20)),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, (4, 13), mode="bilinear", align_corners=True),
        lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"),
        lambda x: F.interpolate(x, (4, 5), mode="bilinear", antialias=True),
        lambda x: F.interpolate(x, (4, 5), mode="bicubic", antialias=True),
        lambda x: F.interpolate(x[0], 12, mode="linear"),
        lambda x: F.interpolate(x, (3, 4), mode="area"),
        lambda x: F.interpolate(x[None], (3, 4, 5), mode="trilinear"),
        lambda x: F.lp_pool2d(x.abs(), 2, 2),
        lambda x: F.interpolate(x, scale_factor=1.5, mode="nearest-exact"),
        lambda x: F.grid_sample(x, torch.tanh(x.permute(0, 2, 3, 1)), align_corners=False),
        lambda x: F.grid_sample(x, x.permute(0, 2, 3, 1), padding_mode="border",
                                align_corners=True),
        lambda x: F.grid_sample(x, torch.tanh(x.permute(0, 2, 3, 1)), "bicubic",
                                align_corners=False),
        lambda x: F.grid_sample(x, x.permute(0, 2, 3, 1), "nearest", "reflection", False),
        lambda x: F.affine_grid(x[0, :, :2, :3][None][0][:1] * 0.1, (1, 1, 4, 5),
                                align_corners=False),
    ]  # fmt: skip
    agree(Family(functions), (x,), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats(dtype):
    x = seeded(3, 8).to(dtype)
    functions = [
        F.gelu, torch.exp, lambda x: x * x + 1, lambda x: x.softmax(-1), lambda x: x @ x.T,
        lambda x: F.layer_norm(x, (8,)), lambda x: x.sum(0), lambda x: x[1:] > 0,
        lambda x: torch.cat([x, x.float()]), lambda x: x.mean(1), lambda x: x.amax(1),
    ]  # fmt: skip
    step = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}[dtype]
    agree(Family(functions), (x,), rtol=step, atol=step)


def test_places_and_running_extremes():
    x, n = seeded(3, 6), seeded(3, 6, dtype=torch.int32, low=-5, high=5)
    edges = torch.tensor([-1.0, 0, 0.5, 1.2])
    x[1, 2] = float("nan")
    functions = [
        lambda x, n, e: x.cummax(1), lambda x, n, e: x.cummin(0), lambda x, n, e: n.cummax(0),
        lambda x, n, e: n.kthvalue(2, 1, keepdim=True)[0], lambda x, n, e: x.median(1),
        lambda x, n, e: torch.searchsorted(e, x[0]), lambda x, n, e: torch.bucketize(x[0], e),
        lambda x, n, e: torch.searchsorted(e, x[2], side="right", out_int32=True),
        lambda x, n, e: torch.erfinv(x * 0.4), lambda x, n, e: torch.triu_indices(3, 4, 1),
        lambda x, n, e: x.diagonal_scatter(e[:3]), lambda x, n, e: e.view(torch.int32),
        lambda x, n, e: F.embedding_bag(n[:2] % 3, x, mode="mean"), lambda x, n, e: (x, e, x),
    ]  # fmt: skip
    agree(Family(functions), (x, n, edges))


def test_quantisation_in_the_open():
    import torch.ao.quantization.fx._decomposed  # registers the operators

    library = torch.ops.quantized_decomposed
    ends = (-128, 127, torch.int8)
    scales, zeros = torch.tensor([0.02, 0.01, 0.3]), torch.tensor([0, 1, -2])
    functions = [
        lambda x, q: library.quantize_per_tensor(x, 0.021, 3, *ends),
        lambda x, q: library.dequantize_per_tensor(q, 0.021, 3, *ends),
        lambda x, q: library.quantize_per_channel(x, scales, zeros, 0, *ends),
        lambda x, q: library.dequantize_per_channel(q, scales, zeros, 0, *ends),
    ]
    agree(Family(functions), (seeded(3, 6), seeded(3, 6, dtype=torch.int8, low=-99, high=99)))


def test_factorisations():
    x, b = seeded(2, 4, 4), seeded(2, 4, 3)
    L = torch.linalg
    functions = [
        lambda x, b: L.solve(x, b), lambda x, b: L.inv(x), lambda x, b: L.det(x),
        lambda x, b: tuple(L.slogdet(x)),
        lambda x, b: L.cholesky(x @ x.mT + torch.eye(4)), lambda x, b: L.eigvalsh(x + x.mT),
        lambda x, b: L.svdvals(b), lambda x, b: L.solve_triangular(x, b, upper=True),
        lambda x, b: torch.matmul(*L.qr(b)), lambda x, b: L.qr(b)[1].abs(),
        lambda x, b: L.solve_triangular(x, b.mT, upper=False, left=False, unitriangular=True),
        lambda x, b: L.solve(x[0], b[0, :, 0]), lambda x, b: L.solve(x, b.mT, left=False),
    ]  # fmt: skip
    agree(Family(functions), (x, b), rtol=1e-3, atol=1e-4)
