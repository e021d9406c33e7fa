"""Packaging of megatron-nca."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "megatron_nca/__init__.py").read_text(encoding="utf-8"))[1]

# A launch brings its own Megatron-Core and torch, often from a container that no installer may touch, so they are an extra.
MEGATRON = ["megatron-core>=0.14,<0.20", "torch>=2.5"]
CLI = ["matplotlib>=3.8", "pillow>=10.1", "tqdm>=4.66"]
DEMO = [*MEGATRON, *CLI, "tokenizers>=0.20", "pybind11>=2.13"]
# What Megatron-LM's own scripts import beyond that; its checkout brings no list of it.
MEGATRON_LM = ["einops>=0.8", "pydantic>=2", "regex", "six"]
TEST = [
    *DEMO,
    *MEGATRON_LM,
    "pytest>=8",
    "pytest-cov>=5",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "scipy>=1.11",
    "psutil>=5.9",
    "playwright>=1.40",
    "tensorboard>=2.14",
]
# NeMo 2.7.3 calls Megatron-Core's optimizers with arguments that 0.16 no longer has.
NEMO = ["nemo-toolkit[nlp,llm]==2.7.3", "nemo-run", "lightning", "megatron-core==0.15.3", "pyarrow<20", "leptonai==0.27.3"]
# Bridge 0.6 wants Python 3.12.
BRIDGE = [
    "megatron-bridge==0.3.1; python_version<'3.12'",
    "megatron-core==0.16.1; python_version<'3.12'",
    "megatron-bridge==0.6.2; python_version>='3.12'",
    "megatron-core==0.19.2; python_version>='3.12'",
    "megatron-energon",
    "nvidia-modelopt",
]
DOCS = ["sphinx>=8.1", "myst-parser>=4", "furo>=2024.8.6"]
LINT = ["ruff==0.17.6", "mypy==2.4.1"]

setup(
    name="megatron-nca",
    version=VERSION,
    description="Neural-cellular-automata pre-pre-training for Megatron-Core, as one more data path entry",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["megatron_nca", "megatron_nca.*"]),
    package_data={"megatron_nca": ["py.typed"], "megatron_nca.cli.pictures": ["*.html"]},
    python_requires=">=3.10",
    install_requires=["numpy>=1.26", "numba>=0.59"],
    entry_points={
        "console_scripts": ["megatron-nca=megatron_nca.cli.main:main"],
        "nemo_run.cli": ["nca=megatron_nca.frameworks.nemo_cli"],
    },
    extras_require={
        "megatron": MEGATRON,
        "cli": CLI,
        "demo": DEMO,
        "test": TEST,
        "lint": LINT,
        "nemo": NEMO,
        "bridge": BRIDGE,
        "docs": DOCS,
        "dev": [*TEST, *LINT, *DOCS],
    },
)
