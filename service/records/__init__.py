"""Bytes to columns, strictly: records, their formats and the schema of features; no I/O, and
only `domain` below it.
"""
