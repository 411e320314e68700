"""Restoring of files: which goes where, and all of them one after the other."""
