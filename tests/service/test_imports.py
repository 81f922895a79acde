"""What a service process must not load."""

import subprocess
import sys

HEAVY = ("tensorflow", "keras", "alibi_detect", "river")


def test_the_service_starts_without_tensorflow_and_river() -> None:
    program = (
        "import sys, service.api.app, service.cli, service.api.replay\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
