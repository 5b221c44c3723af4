"""Small networks of the usual kinds: exported, imported and compiled, against torch itself."""

import numpy as np
import pytest

import aotc

torch = pytest.importorskip(
    "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
)

from torch import nn  # noqa: E402

from tests.importers.torch_agreement import agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """The block of a ResNet with a stride."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
        )
        self.second = nn.Sequential(
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        )
        self.short = nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x):
        return torch.relu(self.second(self.first(x)) + self.short(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def inverted(inside, outside, expand, stride):
    """The bottleneck of MobileNet v2."""
    wide = inside * expand
    return nn.Sequential(
        nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
        nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
        nn.Hardswish(), nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside),
    )  # fmt: skip


def mobile_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), inverted(8, 12, 3, 2), inverted(12, 16, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)
        self.out = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        y = self.up(nn.functional.silu(self.down(x)))
        return {"mask": torch.sigmoid(self.out(torch.cat([x, y], 1))), "features": y}


class Gpt(nn.Module):
    """Token and position embeddings, causal attention, tied output weights."""

    def __init__(self, words=17, width=16, length=6, layers=2):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 32, activation="gelu", batch_first=True,
                                           norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens):
        count = tokens.shape[1]
        x = self.words(tokens) + self.places(torch.arange(count))
        mask = nn.Transformer.generate_square_subsequent_mask(count)
        return self.norm(self.blocks(x, mask=mask, is_causal=True)) @ self.words.weight.T


@pytest.mark.parametrize("make, shape", [
    (ResNet, (2, 3, 32, 32)),
    (mobile_net, (1, 3, 32, 32)),
    (UNet, (1, 1, 8, 10)),
    (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 5, 16)),
    (lambda: nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True), (2, 7, 4)),
    (lambda: nn.GRU(4, 6, 2), (9, 2, 4)),
    (lambda: nn.RNN(3, 5, nonlinearity="relu", bias=False), (6, 1, 3)),
])  # fmt: skip
def test_networks(make, shape):
    torch.manual_seed(1)
    module = make()
    for value in module.buffers():  # running statistics that are not 0 and 1
        if value.dtype.is_floating_point:
            value.copy_(torch.rand(value.shape) + 0.5)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            y = self.module(x)
            return tuple(y.values()) if isinstance(y, dict) else y

    agree(Flat(), (seeded(*shape),), rtol=2e-5, atol=2e-5)


def test_a_small_gpt():
    torch.manual_seed(2)
    agree(Gpt(), (torch.tensor([[1, 5, 16, 0, 3, 2], [4, 4, 1, 9, 12, 7]]),), rtol=2e-5, atol=2e-5)


def test_cells_step_by_step():
    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.gru = nn.LSTMCell(3, 4), nn.GRUCell(4, 4)

        def forward(self, x, h, c):
            h, c = self.lstm(x, (h, c))
            return h, c, self.gru(h, c)

    torch.manual_seed(3)
    agree(Cells(), (seeded(2, 3), seeded(2, 4), seeded(4, 4)[2:]), rtol=1e-5, atol=1e-5)


def test_conditions_and_loops():
    class Control(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            y = torch.cond(x.sum() > 0, lambda x: self.linear(x), lambda x: x - 1, (x,))
            count, z = torch.while_loop(
                lambda i, z: i < 3, lambda i, z: (i + 1, z * 2 + x), (torch.tensor(0), x * 1)
            )
            return y, count, z

    torch.manual_seed(4)
    module = Control()
    for sign in (1, -1):
        x = sign * seeded(2, 4).abs()
        agree(module, (x,))


def test_scans():
    from torch._higher_order_ops import scan

    class Scan(nn.Module):
        def forward(self, state, rows):
            def step(state, row):
                state = state * 0.5 + row
                return state, state.sum()

            return scan(step, state, rows)

    agree(Scan(), (seeded(3), seeded(5, 3)), rtol=1e-5)


def test_training_statistics_are_state():
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).train()
    x = seeded(2, 2, 6, 6)
    exported = torch.export.export(module, (x,))
    graph = aotc.from_torch(exported)
    assert [node.op.name for node in graph.inputs] == [
        "state_1_running_mean", "state_1_running_var", "state_1_num_batches_tracked", "input",
    ]  # fmt: skip
    state = [module[1].running_mean, module[1].running_var, module[1].num_batches_tracked]
    found = aotc.compile(graph)(*(s.clone().numpy() for s in state), x.numpy())
    y = module(x)
    names = [name for name, _ in graph.outputs]
    assert names[0] == "out_state_1_running_mean"
    for ours, theirs in zip(found, [*state, y], strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_an_argument_changed_in_place_is_an_output():
    class Cache(nn.Module):
        def forward(self, cache, x, place):
            cache[:, place] = x[:, None]
            cache.mul_(2)
            return cache.sum()

    cache, x, place = seeded(2, 4), seeded(2), torch.tensor([2])
    graph = aotc.from_torch(Cache(), (cache.clone(), x, place))
    assert [name for name, _ in graph.outputs] == ["out_cache", "out"]
    ours, total = aotc.compile(graph)(cache.numpy().copy(), x.numpy(), place.numpy())
    wanted = Cache()(cache, x, place)
    np.testing.assert_array_equal(ours, cache.numpy())
    np.testing.assert_allclose(total, wanted.numpy(), rtol=1e-6)


def test_regions_without_gradients_and_of_other_precision():
    class Regions(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                y = x * 2
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return y, x @ x.T

    agree(Regions(), (seeded(3, 4),), rtol=1e-2, atol=1e-2)


def test_numbers_taken_out_of_tensors_stay_values():
    class Pick(nn.Module):
        def forward(self, x, order):
            best = order[0]
            return x[best], x[order[1].item()] * 2, x * x.sum().item()

    agree(Pick(), (seeded(4, 3), torch.tensor([2, -1])), rtol=1e-5)
