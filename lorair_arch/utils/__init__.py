"""Checkpoints, options and comparison sheets."""
