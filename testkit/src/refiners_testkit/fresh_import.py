"""Imports the packages of a tree in a fresh process, in which torch must stay unloaded."""

import json
import subprocess
import sys
from typing import Final

from refiners_testkit.subject import Subject

_HEAVY: Final = ("torch", "diffusers", "transformers", "tensorflow", "jax")
_PROGRAM: Final = """
import importlib.abc, json, socket, sys, traceback
path, heavy, packages = json.loads(sys.argv[1])
sys.path[:0] = path
faults = []

def place():
    frames = [f for f in traceback.extract_stack()[:-2] if "importlib" not in f.filename]
    of_package = [f for f in frames if f.filename.startswith(tuple(path))]
    frame = (of_package or frames)[-1]
    return f"{frame.filename}:{frame.lineno}, {frame.line!r},"

class Refusal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            faults.append(f"{place()} imports {name}")
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def refuse(*arguments):
    faults.append(f"{place()} opens a connection")
    raise OSError("no network in an import")

sys.meta_path.insert(0, Refusal())
socket.socket.connect = socket.getaddrinfo = refuse
for package in packages:
    try:
        importlib.import_module(package)
    except BaseException as error:
        if not faults:
            faults.append(f"importing {package} raises {type(error).__name__}: {error}")
print(json.dumps(faults))
"""


def faults_of_import(*subjects: Subject) -> list[str]:
    """Returns the imports of torch and its kin, and the errors, when packages are imported."""
    path = [str(subject.source) for subject in subjects]
    packages = [package for subject in subjects for package in subject.packages]
    request = json.dumps([path, _HEAVY, packages])
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM, request],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if process.returncode:
        return [f"the process ends with {process.returncode}: {process.stderr[-500:]}"]
    return json.loads(process.stdout.splitlines()[-1])
