"""Callbacks: checkpoints, evaluation, alarms, sample grids, averaged weights, progress and speed."""
