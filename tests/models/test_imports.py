import subprocess
import sys
from pathlib import Path

MODULES = "evaluate finetune images job quality registry scorer spec strategy tabular"


def test_what_the_service_imports_brings_no_tensorflow() -> None:
    code = "import sys\n" + "".join(f"import models.{name}\n" for name in MODULES.split())
    code += "heavy = {'tensorflow', 'keras', 'sklearn', 'h5py'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
