import subprocess
import sys

PROGRAM = """\
import importlib, pkgutil, everlearn
for module in pkgutil.walk_packages(everlearn.__path__, "everlearn."):
    importlib.import_module(module.name)
"""


def test_b33_importing_everything_raises_no_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
