"""Logs of a run: a CSV file, W&B, TensorBoard and MLflow."""
