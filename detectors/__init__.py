"""Online drift detectors and the tests that name a shift: pure computation on numpy arrays."""
