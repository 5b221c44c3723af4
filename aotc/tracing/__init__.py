"""A Python function on numpy-like values in, a Graph out: each operation on a `Tensor` becomes
nodes (scope.py keeps them), numpy's own functions included (ufuncs.py, functions.py)."""
