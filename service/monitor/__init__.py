"""One stream, pure: no clock, no I/O, no log; it may use `detectors`, `settings`, `records` and
`domain`.
"""
