"""Small versions of the scripts in benchmarks/reliability."""
