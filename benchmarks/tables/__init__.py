"""The tables of `python -m benchmarks.verdict`: one module a table."""
