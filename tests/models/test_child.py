import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("asked", ["0", "1"])
def test_what_the_environment_says_about_the_kernels_holds(asked: str) -> None:
    code = (
        "import os\n"
        "from models.child import configure_tensorflow\n"
        f"configure_tensorflow(1, training={asked == '0'})\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": asked},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == [asked]
