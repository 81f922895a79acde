"""Detectors whose promise is a theorem; it may use `learners` and the modules at the root."""
