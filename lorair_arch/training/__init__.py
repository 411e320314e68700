"""From an options file to a finished run: the loop, the test, checkpoints and resuming."""
