"""Transport, storage and orchestration: the only package that imports the other two."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("shiftwatch")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
