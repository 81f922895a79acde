"""Detectors of other libraries behind our contract; it may use the modules at the root."""
