"""Random tables of decision trees, as the primitive `Trees` takes them."""

import numpy as np


def random_forest(seed, trees, depth, features, width, columns, dtype, nan_left=False):
    """The operands behind x of a `Trees`: trees of at most ``depth`` levels, some leaves higher
    up; thresholds of one decimal."""
    rng = np.random.default_rng(seed)
    nodes = []  # feature, threshold, child, values, nan_left

    def new(count):
        for _ in range(count):
            nodes.append([int(rng.integers(features)), np.nan, len(nodes) - 1, np.zeros(width), 0])
        return len(nodes) - count

    roots = []
    for _ in range(trees):
        level = [new(1)]
        roots += level
        for at in range(depth + 1):
            below = []
            for node in level:
                if at == depth or (at and rng.random() < 0.2):
                    nodes[node][3] = rng.normal(size=width)
                    continue
                child = new(2)
                nodes[node][1:3] = round(rng.normal(), 1), child
                nodes[node][4] = rng.random() < 0.5
                below += [child, child + 1]
            level = below
    feature, threshold, child, values, flags = zip(*nodes, strict=True)
    tables = [
        np.array(feature, np.int32),
        np.array(threshold, dtype),
        np.array(child, np.int32),
        np.array(values, dtype),
        np.array(roots, np.int32),
        rng.integers(0, columns - width + 1, trees).astype(np.int32),
    ]
    return [*tables, np.array(flags, bool)] if nan_left else tables


def rows_for(seed, count, features, dtype, gaps=False):
    """Rows of features of one decimal; with ``gaps`` some are NaN."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(count, features)), 1).astype(dtype)
    return np.where(rng.random(x.shape) < 0.2, np.nan, x).astype(dtype) if gaps else x
