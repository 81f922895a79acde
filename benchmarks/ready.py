"""What it takes until a stream's monitor can read: to be run in a process of its own.

``python -m benchmarks.ready``
"""

from __future__ import annotations

import json
import resource
import sys
import time

COLUMNS = 32


def resident() -> float:
    """MiB that the process has at most had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def monitor_ready() -> dict[str, float]:
    """Processor seconds and memory since Python was started, and whether TensorFlow was."""
    from benchmarks.monitoring import measured_only  # noqa: PLC0415
    from service.monitor.monitor import Monitor  # noqa: PLC0415
    from service.monitor.representation import Tabular  # noqa: PLC0415
    from service.records.schema import FeatureSchema  # noqa: PLC0415
    from service.settings.stream import StreamSettings  # noqa: PLC0415

    names = [f"x{j}" for j in range(COLUMNS)]
    schema = FeatureSchema.declared(dict.fromkeys(names, "numeric"))
    settings = StreamSettings.model_validate({"name": "s", "problem": "x_to_y"})
    Monitor(settings, Tabular(schema), measured_only)
    return {
        "cpu_s": time.process_time(),
        "mib": resident(),
        "tensorflow": float("tensorflow" in sys.modules),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(monitor_ready()) + "\n")
