"""Experiments: data and batches, the training loop, and the run folder that it leaves behind."""
