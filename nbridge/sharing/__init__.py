"""Models for others: the Hugging Face Hub, ONNX and torch.export."""
