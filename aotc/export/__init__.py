"""A Graph in, a standard ONNX model out: `save_onnx` (onnx_file.py). Each primitive becomes nodes
by the rule of its family (rules_*.py), written by the emitter (emitter.py)."""
