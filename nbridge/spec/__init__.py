"""The spec: what a model is made of, what it is trained on and how; reading, checking and describing it. Nothing here imports torch."""
