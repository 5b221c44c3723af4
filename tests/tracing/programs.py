"""Small numerical programs as numpy writes them: a name in, the traced form, the numpy form and
arguments out. Where numpy has a Python loop, the traced form has one of aotc's."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import aotc

F32 = np.float32


@dataclass(frozen=True)
class Program:
    """``traced`` and ``plain`` take ``inputs``; ``tolerance`` is relative to the largest value."""

    name: str
    traced: Any
    plain: Any
    inputs: tuple
    tolerance: float = 1e-5


def fir(x, taps):
    return np.convolve(x, taps, "valid")


def iir_traced(x, b, a):
    """A biquad in transposed direct form II."""

    def step(state, sample):
        s1, s2 = state
        y = b[0] * sample + s1
        return (b[1] * sample - a[0] * y + s2, b[2] * sample - a[1] * y), y

    return aotc.scan(step, (F32(0), F32(0)), x)[1]


def iir_plain(x, b, a):
    s1 = s2 = F32(0)
    out = np.empty_like(x)
    for i, sample in enumerate(x):
        y = b[0] * sample + s1
        s1, s2 = b[1] * sample - a[0] * y + s2, b[2] * sample - a[1] * y
        out[i] = y
    return out


def kmeans_step(points, centres):
    apart = ((points[:, None, :] - centres[None]) ** 2).sum(axis=-1)
    nearest = apart.argmin(axis=1)
    member = (nearest[:, None] == np.arange(centres.shape[0])).astype(np.float32)
    count = np.maximum(member.sum(axis=0), F32(1))
    return (member.T @ points) / count[:, None], nearest


def kalman_step(x, p, z):
    f = np.array([[1, 0.1], [0, 1]], np.float32)
    h = np.array([[1, 0]], np.float32)
    q = np.eye(2, dtype=np.float32) * F32(0.01)
    x, p = f @ x, f @ p @ f.T + q
    s = h @ p @ h.T + F32(0.1)
    k = p @ h.T / s
    return x + k @ (z - h @ x), (np.eye(2, dtype=np.float32) - k @ h) @ p


def overlaps(box, boxes):
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    inner = np.prod(np.maximum(high - low, F32(0)), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return inner / (area - inner)


def nms_traced(boxes, scores):
    """Which boxes stay: the best one, then the best of those that overlap none before."""

    def left(state):
        return np.max(state[0]) > F32(0.1)

    def step(state):
        scores, kept = state
        best = np.argmax(scores)
        near = overlaps(boxes[best], boxes) > F32(0.5)
        here = np.arange(boxes.shape[0]) == best
        return np.where(near | here, F32(0), scores), kept | here

    return aotc.while_loop(left, step, (scores, np.zeros(boxes.shape[0], bool)))[1]


def nms_plain(boxes, scores):
    scores, kept = scores.copy(), np.zeros(len(boxes), bool)
    while scores.max() > F32(0.1):
        best = scores.argmax()
        kept[best] = True
        scores[(overlaps(boxes[best], boxes) > F32(0.5)) | kept] = 0
    return kept


def pyramid(image):
    """Blurred with 1 4 6 4 1 and halved, three times."""
    levels = []
    weights = np.array([1, 4, 6, 4, 1], np.float32) / F32(16)
    for _ in range(3):
        rows, columns = image.shape
        wide = np.pad(image, 2, mode="reflect")
        across = sum(w * wide[:, i : i + columns] for i, w in enumerate(weights))
        image = sum(w * across[i : i + rows] for i, w in enumerate(weights))[::2, ::2]
        levels.append(image)
    return tuple(levels)


def _normal(x):
    """The normal distribution by A&S 26.2.17, which numpy can write."""
    k = 1 / (1 + F32(0.2316419) * np.abs(x))
    poly = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978
                + k * 1.330274429))))  # fmt: skip
    tail = np.exp(-x * x / 2) * F32(0.3989422804) * poly
    return np.where(x > 0, 1 - tail, tail)


def black_scholes(spot, strike, time):
    rate, volatility = F32(0.02), F32(0.3)
    spread = volatility * np.sqrt(time)
    d1 = (np.log(spot / strike) + (rate + volatility * volatility / 2) * time) / spread
    d2 = d1 - spread
    now = strike * np.exp(-rate * time)
    return spot * _normal(d1) - now * _normal(d2), now * _normal(-d2) - spot * _normal(-d1)


def n_body(position, velocity, mass):
    apart = position[None] - position[:, None]
    distance = (apart**2).sum(axis=-1) + F32(0.01)
    pull = (apart * (mass[None, :] / (distance * np.sqrt(distance)))[..., None]).sum(axis=1)
    velocity = velocity + pull * F32(0.01)
    return position + velocity * F32(0.01), velocity


def logistic_traced(w, b, x, y):
    """A step of gradient descent on the cross entropy of a logistic regression."""

    def loss(w, b):
        score = x @ w + b
        return np.mean(np.logaddexp(0, score) - y * score)

    slopes = aotc.grad(loss, (0, 1))(w, b)
    return tuple(p - F32(0.5) * slope for p, slope in zip((w, b), slopes, strict=True))


def logistic_plain(w, b, x, y):
    """The same, its gradient by hand."""
    p = 1 / (1 + np.exp(-(x @ w + b)))
    error = (p - y) / F32(x.shape[0])
    return w - F32(0.5) * (x.T @ error), b - F32(0.5) * error.sum()


def mlp_traced(w1, b1, w2, b2, x, label):
    """A step of gradient descent on the cross entropy of a network with one hidden layer."""

    def loss(w1, b1, w2, b2):
        scores = np.maximum(x @ w1 + b1, 0) @ w2 + b2
        scores = scores - aotc.stop_gradient(scores.max(axis=1, keepdims=True))
        own = np.where(label[:, None] == np.arange(w2.shape[1]), scores, 0).sum(axis=1)
        return np.mean(np.log(np.exp(scores).sum(axis=1)) - own)

    weights = (w1, b1, w2, b2)
    slopes = aotc.grad(loss, (0, 1, 2, 3))(*weights)
    return tuple(p - F32(0.1) * slope for p, slope in zip(weights, slopes, strict=True))


def mlp_plain(w1, b1, w2, b2, x, label):
    """The same, its gradients by hand."""
    hidden = np.maximum(x @ w1 + b1, 0)
    scores = hidden @ w2 + b2
    power = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = power / power.sum(axis=1, keepdims=True)
    ds = (p - (label[:, None] == np.arange(w2.shape[1]))) / F32(x.shape[0])
    ds = ds.astype(np.float32)
    dh = (ds @ w2.T) * (hidden > 0)
    rate = F32(0.1)
    return (w1 - rate * (x.T @ dh), b1 - rate * dh.sum(axis=0), w2 - rate * (hidden.T @ ds),
            b2 - rate * ds.sum(axis=0))  # fmt: skip


def attention(q, k, v):
    scores = np.einsum("hid,hjd->hij", q, k) / F32(np.sqrt(q.shape[-1]))
    power = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hij,hjd->hid", power / power.sum(axis=-1, keepdims=True), v)


def mandelbrot_traced(re, im):
    def inside(state):
        return (state[0] < 50) & np.any(state[1] * state[1] + state[2] * state[2] <= 4)

    def step(state):
        i, x, y, count = state
        near = x * x + y * y <= 4
        new_x = np.where(near, x * x - y * y + re, x)
        return i + 1, new_x, np.where(near, 2 * x * y + im, y), count + near

    zero = np.zeros(re.shape, np.float32)
    return aotc.while_loop(inside, step, (0, zero, zero, np.zeros(re.shape, np.int32)))[3]


def mandelbrot_plain(re, im):
    x = y = np.zeros(re.shape, np.float32)
    count = np.zeros(re.shape, np.int32)
    for _ in range(50):
        near = x * x + y * y <= 4
        if not near.any():
            break
        x, y = np.where(near, x * x - y * y + re, x), np.where(near, 2 * x * y + im, y)
        count = count + near
    return count


def programs(scale=1):
    """All of them, with inputs that grow with ``scale``."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def uniform(low, high, *shape):
        return rng.uniform(low, high, shape).astype(np.float32)

    n = 64 * scale
    corners = uniform(0, 10, 16 * scale, 2)
    boxes = np.concatenate([corners, corners + uniform(1, 4, 16 * scale, 2)], axis=1)
    # on a grid of powers of two, near the set's border but with room for rounding
    re, im = np.meshgrid(np.linspace(-2, 0.5, 16 * scale), np.linspace(-1, 1, 8 * scale))
    biquad = (np.array([0.2, 0.4, 0.2], np.float32), np.array([-0.4, 0.2], np.float32))
    digits = (normal(32, 16) / 4, normal(16), normal(16, 10) / 4, normal(10))
    return (
        Program("fir", fir, fir, (normal(4 * n), normal(16))),
        Program("iir", iir_traced, iir_plain, (normal(2 * n), *biquad)),
        Program("kmeans_step", kmeans_step, kmeans_step, (normal(n, 4), normal(8, 4))),
        Program("kalman_step", kalman_step, kalman_step,
                (normal(2, 1), np.eye(2, dtype=np.float32), normal(1, 1))),
        Program("nms", nms_traced, nms_plain, (boxes, uniform(0, 1, 16 * scale))),
        Program("pyramid", pyramid, pyramid, (uniform(0, 1, 32 * scale, 32 * scale),)),
        Program("black_scholes", black_scholes, black_scholes,
                (uniform(80, 120, n), uniform(80, 120, n), uniform(0.2, 2, n))),
        Program("n_body", n_body, n_body, (normal(16, 3), normal(16, 3), uniform(1, 2, 16))),
        Program("logistic_step", logistic_traced, logistic_plain,
                (normal(8), F32(0.5), normal(n, 8), rng.integers(0, 2, n).astype(np.float32))),
        Program("mlp_step", mlp_traced, mlp_plain,
                (*digits, normal(n, 32), rng.integers(0, 10, n))),
        Program("attention", attention, attention, tuple(normal(2, 32, 16) for _ in range(3))),
        Program("mandelbrot", mandelbrot_traced, mandelbrot_plain,
                (re.astype(np.float32), im.astype(np.float32))),
    )  # fmt: skip
