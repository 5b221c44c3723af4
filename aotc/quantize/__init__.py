"""Post-training quantisation: a float ONNX model and samples in, a QDQ model and a report out."""
