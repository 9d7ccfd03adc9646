"""Captioners in ONNX, a format of networks that runs without PyTorch: `xgpt-export --onnx`, read by `runtime/`."""
