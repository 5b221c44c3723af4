"""The programs of tests/tracing/programs.py as users of JAX and numba write them: a name in,
functions of the same arguments and results out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

F32 = np.float32


def jax_programs() -> dict[str, Callable[..., Any]]:
    """Functions for ``jax.jit``; needs JAX."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def iir(x, b, a):
        def step(state, sample):
            s1, s2 = state
            y = b[0] * sample + s1
            return (b[1] * sample - a[0] * y + s2, b[2] * sample - a[1] * y), y

        return lax.scan(step, (jnp.float32(0), jnp.float32(0)), x)[1]

    def kmeans_step(points, centres):
        apart = ((points[:, None, :] - centres[None]) ** 2).sum(axis=-1)
        nearest = apart.argmin(axis=1)
        member = jax.nn.one_hot(nearest, centres.shape[0], dtype=jnp.float32)
        count = jnp.maximum(member.sum(axis=0), 1.0)
        return (member.T @ points) / count[:, None], nearest

    def kalman_step(x, p, z):
        f = jnp.array([[1, 0.1], [0, 1]], jnp.float32)
        h = jnp.array([[1, 0]], jnp.float32)
        x, p = f @ x, f @ p @ f.T + jnp.eye(2) * 0.01
        k = p @ h.T / (h @ p @ h.T + 0.1)
        return x + k @ (z - h @ x), (jnp.eye(2) - k @ h) @ p

    def overlaps(box, boxes):
        low = jnp.maximum(box[:2], boxes[:, :2])
        high = jnp.minimum(box[2:], boxes[:, 2:])
        inner = jnp.prod(jnp.maximum(high - low, 0), axis=1)
        area = jnp.prod(box[2:] - box[:2]) + jnp.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        return inner / (area - inner)

    def nms(boxes, scores):
        def step(state):
            scores, kept = state
            best = jnp.argmax(scores)
            here = jnp.arange(boxes.shape[0]) == best
            near = overlaps(boxes[best], boxes) > 0.5
            return jnp.where(near | here, 0.0, scores), kept | here

        start = scores, jnp.zeros(boxes.shape[0], bool)
        return lax.while_loop(lambda s: jnp.max(s[0]) > 0.1, step, start)[1]

    def pyramid(image):
        levels, weights = [], np.array([1, 4, 6, 4, 1], np.float32) / 16
        for _ in range(3):
            rows, columns = image.shape
            wide = jnp.pad(image, 2, mode="reflect")
            across = sum(w * wide[:, i : i + columns] for i, w in enumerate(weights))
            image = sum(w * across[i : i + rows] for i, w in enumerate(weights))[::2, ::2]
            levels.append(image)
        return tuple(levels)

    def normal(x):
        k = 1 / (1 + 0.2316419 * jnp.abs(x))
        poly = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978
                    + k * 1.330274429))))  # fmt: skip
        tail = jnp.exp(-x * x / 2) * 0.3989422804 * poly
        return jnp.where(x > 0, 1 - tail, tail)

    def black_scholes(spot, strike, time):
        rate, volatility = 0.02, 0.3
        spread = volatility * jnp.sqrt(time)
        d1 = (jnp.log(spot / strike) + (rate + volatility * volatility / 2) * time) / spread
        d2 = d1 - spread
        now = strike * jnp.exp(-rate * time)
        return spot * normal(d1) - now * normal(d2), now * normal(-d2) - spot * normal(-d1)

    def n_body(position, velocity, mass):
        apart = position[None] - position[:, None]
        distance = (apart**2).sum(axis=-1) + 0.01
        pull = (apart * (mass[None, :] / (distance * jnp.sqrt(distance)))[..., None]).sum(axis=1)
        velocity = velocity + pull * 0.01
        return position + velocity * 0.01, velocity

    def logistic_step(w, b, x, y):
        def loss(w, b):
            scores = x @ w + b
            return jnp.mean(jnp.logaddexp(0, scores) - y * scores)

        dw, db = jax.grad(loss, (0, 1))(w, b)
        return w - 0.5 * dw, b - 0.5 * db

    def mlp_step(w1, b1, w2, b2, x, label):
        def loss(w1, b1, w2, b2):
            scores = jnp.maximum(x @ w1 + b1, 0) @ w2 + b2
            chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), label[:, None], 1)
            return -jnp.mean(chosen)

        grads = jax.grad(loss, (0, 1, 2, 3))(w1, b1, w2, b2)
        return tuple(p - 0.1 * g for p, g in zip((w1, b1, w2, b2), grads, strict=True))

    def attention(q, k, v):
        scores = jnp.einsum("hid,hjd->hij", q, k) / math.sqrt(q.shape[-1])
        return jnp.einsum("hij,hjd->hid", jax.nn.softmax(scores), v)

    def mandelbrot(re, im):
        def inside(state):
            return (state[0] < 50) & jnp.any(state[1] * state[1] + state[2] * state[2] <= 4)

        def step(state):
            i, x, y, count = state
            near = x * x + y * y <= 4
            new_x = jnp.where(near, x * x - y * y + re, x)
            return i + 1, new_x, jnp.where(near, 2 * x * y + im, y), count + near

        zero = jnp.zeros(re.shape, jnp.float32)
        return lax.while_loop(inside, step, (0, zero, zero, jnp.zeros(re.shape, jnp.int32)))[3]

    def fir(x, taps):
        return jnp.convolve(x, taps, "valid")

    return {
        function.__name__: jax.jit(function)
        for function in (fir, iir, kmeans_step, kalman_step, nms, pyramid, black_scholes, n_body,
                         logistic_step, mlp_step, attention, mandelbrot)
    }  # fmt: skip


def numba_programs() -> dict[str, Callable[..., Any]]:
    """Loops for ``numba.njit``; needs numba, and scipy for its products of matrices."""
    return {**_numba_signals(), **_numba_steps(), **_numba_fields()}


def _numba_signals() -> dict[str, Callable[..., Any]]:
    from numba import njit

    @njit
    def fir(x, taps):
        size = taps.size
        out = np.empty(x.size - size + 1, np.float32)
        for i in range(out.size):
            total = F32(0)
            for j in range(size):
                total += x[i + size - 1 - j] * taps[j]
            out[i] = total
        return out

    @njit
    def iir(x, b, a):
        s1 = s2 = F32(0)
        out = np.empty_like(x)
        for i in range(x.size):
            y = b[0] * x[i] + s1
            s1, s2 = b[1] * x[i] - a[0] * y + s2, b[2] * x[i] - a[1] * y
            out[i] = y
        return out

    @njit
    def pyramid_level(image):
        rows, columns = image.shape
        weights = np.array([1, 4, 6, 4, 1], np.float32) / F32(16)
        across = np.empty((rows, columns // 2), np.float32)
        for r in range(rows):
            for c in range(columns // 2):
                total = F32(0)
                for i in range(5):
                    at = abs(2 * c + i - 2)
                    at = 2 * columns - 2 - at if at >= columns else at
                    total += weights[i] * image[r, at]
                across[r, c] = total
        out = np.zeros((rows // 2, columns // 2), np.float32)
        for r in range(rows // 2):
            for i in range(5):
                at = abs(2 * r + i - 2)
                at = 2 * rows - 2 - at if at >= rows else at
                for c in range(columns // 2):
                    out[r, c] += weights[i] * across[at, c]
        return out

    @njit
    def pyramid(image):
        first = pyramid_level(image)
        second = pyramid_level(first)
        return first, second, pyramid_level(second)

    return {"fir": fir, "iir": iir, "pyramid": pyramid}


def _numba_steps() -> dict[str, Callable[..., Any]]:
    from numba import njit

    @njit
    def kmeans_step(points, centres):
        count, size = centres.shape
        sums, members = np.zeros((count, size), np.float32), np.zeros(count, np.float32)
        nearest = np.empty(points.shape[0], np.int64)
        for i in range(points.shape[0]):
            best, least = 0, F32(np.inf)
            for j in range(count):
                apart = F32(0)
                for k in range(size):
                    d = points[i, k] - centres[j, k]
                    apart += d * d
                if apart < least:
                    best, least = j, apart
            nearest[i] = best
            members[best] += F32(1)
            for k in range(size):
                sums[best, k] += points[i, k]
        for j in range(count):
            for k in range(size):
                sums[j, k] /= max(members[j], F32(1))
        return sums, nearest

    @njit
    def kalman_step(x, p, z):
        f = np.array([[1.0, 0.1], [0.0, 1.0]], np.float32)
        h = np.array([[1.0, 0.0]], np.float32)
        x, p = f @ x, f @ p @ f.T + np.eye(2, dtype=np.float32) * F32(0.01)
        k = p @ h.T / (h @ p @ h.T + F32(0.1))
        return x + k @ (z - h @ x), (np.eye(2, dtype=np.float32) - k @ h) @ p

    @njit
    def logistic_step(w, b, x, y):
        count, size = x.shape
        dw, db = np.zeros(size, np.float32), F32(0)
        for i in range(count):
            score = b
            for k in range(size):
                score += x[i, k] * w[k]
            error = (F32(1) / (F32(1) + np.exp(-score)) - y[i]) / F32(count)
            db += error
            for k in range(size):
                dw[k] += error * x[i, k]
        return w - F32(0.5) * dw, b - F32(0.5) * db

    @njit
    def mlp_step(w1, b1, w2, b2, x, label):
        hidden = np.maximum(x @ w1 + b1, F32(0))
        ds = hidden @ w2 + b2
        for i in range(ds.shape[0]):
            most, total = ds[i].max(), F32(0)
            for j in range(ds.shape[1]):
                ds[i, j] = np.exp(ds[i, j] - most)
                total += ds[i, j]
            for j in range(ds.shape[1]):
                ds[i, j] = (ds[i, j] / total - F32(j == label[i])) / F32(ds.shape[0])
        dh = ds @ w2.T
        for i in range(dh.shape[0]):
            for j in range(dh.shape[1]):
                dh[i, j] = dh[i, j] if hidden[i, j] > 0 else F32(0)
        rate = F32(0.1)
        return (w1 - rate * (x.T @ dh), b1 - rate * dh.sum(axis=0),
                w2 - rate * (hidden.T @ ds), b2 - rate * ds.sum(axis=0))  # fmt: skip

    return {"kmeans_step": kmeans_step, "kalman_step": kalman_step,
            "logistic_step": logistic_step, "mlp_step": mlp_step}  # fmt: skip


def _numba_fields() -> dict[str, Callable[..., Any]]:
    from numba import njit

    @njit
    def nms(boxes, scores):
        left, kept = scores.copy(), np.zeros(len(boxes), np.bool_)
        while True:
            best = np.argmax(left)
            if not left[best] > F32(0.1):
                return kept
            kept[best] = True
            left[best] = 0
            b = boxes[best]
            own = (b[2] - b[0]) * (b[3] - b[1])
            for i in range(len(boxes)):
                o = boxes[i]
                width = max(min(b[2], o[2]) - max(b[0], o[0]), F32(0))
                height = max(min(b[3], o[3]) - max(b[1], o[1]), F32(0))
                inner = width * height
                if inner / (own + (o[2] - o[0]) * (o[3] - o[1]) - inner) > F32(0.5):
                    left[i] = 0

    @njit
    def normal(x):
        k = F32(1) / (F32(1) + F32(0.2316419) * abs(x))
        poly = k * (F32(0.319381530) + k * (F32(-0.356563782) + k * (F32(1.781477937)
                    + k * (F32(-1.821255978) + k * F32(1.330274429)))))  # fmt: skip
        tail = np.exp(-x * x / F32(2)) * F32(0.3989422804) * poly
        return F32(1) - tail if x > 0 else tail

    @njit
    def black_scholes(spot, strike, time):
        rate, volatility = F32(0.02), F32(0.3)
        call, put = np.empty_like(spot), np.empty_like(spot)
        drift = rate + volatility * volatility / F32(2)
        for i in range(spot.size):
            spread = volatility * np.sqrt(time[i])
            d1 = (np.log(spot[i] / strike[i]) + drift * time[i]) / spread
            d2 = d1 - spread
            now = strike[i] * np.exp(-rate * time[i])
            call[i] = spot[i] * normal(d1) - now * normal(d2)
            put[i] = now * normal(-d2) - spot[i] * normal(-d1)
        return call, put

    @njit
    def n_body(position, velocity, mass):
        after, moved = np.empty_like(velocity), np.empty_like(position)
        for i in range(mass.size):
            px, py, pz = F32(0), F32(0), F32(0)
            for j in range(mass.size):
                x = position[j, 0] - position[i, 0]
                y = position[j, 1] - position[i, 1]
                z = position[j, 2] - position[i, 2]
                distance = x * x + y * y + z * z + F32(0.01)
                pull = mass[j] / (distance * np.sqrt(distance))
                px, py, pz = px + x * pull, py + y * pull, pz + z * pull
            after[i, 0] = velocity[i, 0] + px * F32(0.01)
            after[i, 1] = velocity[i, 1] + py * F32(0.01)
            after[i, 2] = velocity[i, 2] + pz * F32(0.01)
            for k in range(3):
                moved[i, k] = position[i, k] + after[i, k] * F32(0.01)
        return moved, after

    @njit
    def attention(q, k, v):
        heads, rows, depth = q.shape
        out, power = np.zeros_like(q), np.empty(rows, np.float32)
        scale = F32(1 / math.sqrt(depth))
        for h in range(heads):
            for i in range(rows):
                most, total = F32(-np.inf), F32(0)
                for j in range(rows):
                    score = F32(0)
                    for d in range(depth):
                        score += q[h, i, d] * k[h, j, d]
                    power[j] = score * scale
                    most = max(most, power[j])
                for j in range(rows):
                    power[j] = np.exp(power[j] - most)
                    total += power[j]
                for j in range(rows):
                    for d in range(depth):
                        out[h, i, d] += power[j] / total * v[h, j, d]
        return out

    @njit
    def mandelbrot(re, im):
        count = np.zeros(re.shape, np.int32)
        for r in range(re.shape[0]):
            for c in range(re.shape[1]):
                x = y = F32(0)
                for _ in range(50):
                    if not x * x + y * y <= F32(4):
                        break
                    x, y = x * x - y * y + re[r, c], F32(2) * x * y + im[r, c]
                    count[r, c] += 1
        return count

    return {"nms": nms, "black_scholes": black_scholes, "n_body": n_body,
            "attention": attention, "mandelbrot": mandelbrot}  # fmt: skip


PEERS: dict[str, Callable[[], dict[str, Callable[..., Any]]]] = {
    "jax": jax_programs,
    "numba": numba_programs,
}
