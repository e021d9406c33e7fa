"""Checkouts of Megatron-LM: where they are, which version they hold, and their compiled dataset helpers.

The environment variable `MEGATRON_LM` names one checkout, or a folder of checkouts. Tests that need one skip without it.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIABLE = "MEGATRON_LM"
_SCRIPT = "pretrain_gpt.py"
_DATASETS = Path("megatron/core/datasets")
_PACKAGE_INFO = Path("megatron/core/package_info.py")
_BUILD_SETTINGS = "import sysconfig, pybind11; print(sysconfig.get_config_var('EXT_SUFFIX')); print(pybind11.get_include())"
_INCLUDE = "import sysconfig; print(sysconfig.get_path('include'))"


@dataclass(frozen=True)
class Checkout:
    """A checkout of Megatron-LM.

    Args:
        path: The checkout's folder, the one of `pretrain_gpt.py`.
    """

    path: Path

    @property
    def script(self) -> Path:
        """The path of `pretrain_gpt.py`."""
        return self.path / _SCRIPT

    @property
    def version(self) -> tuple[int, int, int]:
        """The version of Megatron-Core in it: major, minor, patch."""
        text = (self.path / _PACKAGE_INFO).read_text()
        major, minor, patch = (int(_assigned(name, text)) for name in ("MAJOR", "MINOR", "PATCH"))
        return major, minor, patch

    @property
    def is_patched(self) -> bool:
        """Whether it registers the plugin itself, as with `patches/megatron-lm`."""
        return "megatron_nca.register()" in (self.path / "megatron/training/__init__.py").read_text(encoding="utf-8")

    @property
    def tag(self) -> str:
        """The version as Megatron-LM tags it: `core_v0.16.1`."""
        return "core_v" + ".".join(map(str, self.version))


def find_checkouts(environment: Mapping[str, str] = os.environ) -> tuple[Checkout, ...]:
    """Find the checkouts that the environment names, oldest version first.

    Args:
        environment: Environment variables, of which `MEGATRON_LM` is read.

    Returns:
        Nothing if the variable is unset or empty.

    Raises:
        FileNotFoundError: If the variable names a folder in which there is no checkout.
    """
    named = environment.get(VARIABLE)
    if not named:
        return ()
    folder = Path(named).resolve()
    found = [Checkout(script.parent) for pattern in (_SCRIPT, f"*/{_SCRIPT}") for script in folder.glob(pattern)]
    if not found:
        raise FileNotFoundError(
            f"{VARIABLE}={named} holds no checkout of Megatron-LM: neither {_SCRIPT} nor a folder with it. "
            "Name a checkout, or a folder of checkouts"
        )
    return tuple(sorted(found, key=lambda checkout: checkout.version))


def compile_helpers(checkout: Checkout, python: str = sys.executable) -> Path:
    """Compile the dataset helpers of a checkout for a Python, if that has not been done.

    Several processes may do so at once: the file appears complete or not at all.

    Args:
        checkout: The checkout, in which the file is written.
        python: The interpreter that will import it; has pybind11.

    Returns:
        The compiled file.
    """
    datasets = checkout.path / _DATASETS
    source, compiled = datasets / "helpers.cpp", datasets / f"helpers_cpp{extension_suffix(python)}"
    if compiled.exists() and compiled.stat().st_mtime >= source.stat().st_mtime:
        return compiled
    with tempfile.TemporaryDirectory(dir=datasets) as folder:
        output = Path(folder) / compiled.name
        includes = [f"-I{path}" for path in _build_settings(python)[1:]]
        _run(os.environ.get("CXX", "g++"), "-O3", "-shared", "-std=c++17", "-fPIC", *includes, str(source), "-o", str(output))
        os.replace(output, compiled)
    return compiled


def extension_suffix(python: str = sys.executable) -> str:
    """Return the end of a compiled module's name for a Python, such as `.cpython-311-x86_64-linux-gnu.so`."""
    return _build_settings(python)[0]


@cache
def _build_settings(python: str) -> tuple[str, ...]:
    """Return the extension suffix, pybind11's headers, Python's headers."""
    try:
        return (*_run(python, "-c", _BUILD_SETTINGS).split(), _run(python, "-c", _INCLUDE).strip())
    except RuntimeError as error:
        raise RuntimeError(
            f"Megatron-LM's dataset helpers are compiled with pybind11: {python} -m pip install pybind11"
        ) from error


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return result.stdout


def _assigned(name: str, text: str) -> str:
    match = re.search(rf"^{name} = (\d+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"{_PACKAGE_INFO} assigns no number to {name}: not a checkout of Megatron-LM 0.14 or later")
    return match[1]
