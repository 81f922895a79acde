"""One YAML file, checked before anything starts; it may use `records` and `domain`."""
