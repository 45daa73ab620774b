"""The experiment spec: model, data and training; its parser, validation and JSON Schema. Nothing here imports torch."""
