"""The binary success classifier: model, training, node."""
