"""Models outside of PyTorch: as ONNX graphs, in smaller numbers, run and compared."""
