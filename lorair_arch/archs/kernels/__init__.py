"""Speed and memory alone; each file says which lines of `reference.py` it replaces, by how much."""
