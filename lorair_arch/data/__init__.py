"""Data sets, where their images lie, and how images are degraded, read and written."""
