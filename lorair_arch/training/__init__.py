"""From an options file to a finished run: BasicSR's pipelines, distributed processes, checkpoints and resuming."""
