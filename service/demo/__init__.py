"""The demo: data, an in-process source, a driver that lets the world change, and a screen."""
