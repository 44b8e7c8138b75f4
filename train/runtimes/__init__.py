"""Models outside of PyTorch: as ONNX graphs, quantised, run and compared."""
