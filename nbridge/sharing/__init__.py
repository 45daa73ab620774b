"""Sharing models: the Hugging Face Hub, ONNX and torch.export."""
