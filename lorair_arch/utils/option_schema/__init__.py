"""What an options file may hold: the kinds of values (`specs`, `kinds`) and every key (`training` and the others)."""
