"""Image files: the one reader and the one writer, for training, testing and restoring alike."""
