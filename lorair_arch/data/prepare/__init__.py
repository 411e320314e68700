"""`lorair data prepare`: the benchmarks of the field, from what their authors distribute to LMDBs."""
