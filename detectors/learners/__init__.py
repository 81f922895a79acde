"""What a reference teaches: maps, models and moments; it may use `rows` and `base`."""
