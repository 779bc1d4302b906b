"""Weights: checkpoints, and the file formats of other programs."""
