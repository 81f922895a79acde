"""What goes with a verdict: where, how much, which labels; it may use `attribution`."""
