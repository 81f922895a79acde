"""Measurements of Shiftwatch, beside its rivals, on seeds that nothing was tuned on."""
