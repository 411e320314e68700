"""What an options file may hold: the kinds of values (`specs`) and every key (`datasets`, `networks`, `training`)."""
