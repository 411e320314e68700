"""Metrics, and how images are measured by them."""
