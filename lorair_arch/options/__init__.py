"""Options files: YAML, what may stand in them, and how they are completed."""
