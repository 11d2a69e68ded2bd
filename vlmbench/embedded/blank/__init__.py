"""Untrained checkpoints of the real architectures, one file each, named as the model is."""
