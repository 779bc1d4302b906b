"""Reading and writing of checkpoints, and of the weight files of other programs."""
