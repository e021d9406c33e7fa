"""``megatron-nca doctor``: would this machine train, and make the same tokens as the others?"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import megatron_nca
from megatron_nca.automaton import known_sizes
from megatron_nca.automaton.config import NCAConfig
from megatron_nca.automaton.source import NCASource
from megatron_nca.cli.common import FINDING, OK, add_command, print_json
from megatron_nca.data.entry import parse_entry
from megatron_nca.data.fingerprint import fingerprint, with_complexity
from megatron_nca.errors import EnvironmentMismatchError
from megatron_nca.frameworks.seams import SEAMS
from megatron_nca.patching import is_importable
from megatron_nca.training import extra_state

EXAMPLES = """  megatron-nca doctor
  srun --ntasks-per-node 1 megatron-nca doctor --fingerprint | sort | uniq -c    # one line if all nodes agree
  megatron-nca doctor --expect 2f6c...                                           # exit code 1 if this node differs"""

OK_MARK, FAILED, ABSENT = "ok", "FAILED", "absent"
FINGERPRINT_ENTRIES = ("nca:", "nca:domain=code", "nca:gzip=none,colors=16,patch=1,temperature=1e-3")
FINGERPRINT_SEED = 1
PACKAGES = ("numpy", "numba", "torch", "megatron-core", "transformer-engine", "matplotlib", "tqdm")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ``ok``, ``FAILED``, or ``absent`` for something that not every machine needs.
        detail: What was found, and for a failure what to do.
    """

    name: str
    state: str
    detail: str


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(subparsers, "doctor", run, "check this machine: versions, known answers, Megatron's seam", EXAMPLES)
    parser.add_argument("--fingerprint", action="store_true", help="print the fingerprint of this machine's tokens alone")
    parser.add_argument("--expect", metavar="FINGERPRINT", help="fail unless this machine's fingerprint is this one")


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 1 if a check failed."""
    entries = [parse_entry(entry) for entry in FINGERPRINT_ENTRIES]
    measured = with_complexity(fingerprint(entries, FINGERPRINT_SEED), entries, FINGERPRINT_SEED)
    if args.fingerprint:
        if args.json:
            print_json({"fingerprint": measured, "as_expected": args.expect in (None, measured)})
        else:
            print(measured)
        return OK if args.expect in (None, measured) else FINDING
    found = checks(measured, args.expect)
    failed = any(check.state == FAILED for check in found)
    if args.json:
        print_json({
            "versions": versions(), "checks": [asdict(check) for check in found], "fingerprint": measured,
            "healthy": not failed,
        })  # fmt: skip
    else:
        _print(found, measured)
    return FINDING if failed else OK


def versions() -> dict[str, str | None]:
    """Return versions of what tokens and training depend on; None for a package that is not installed."""
    found: dict[str, str | None] = {
        "megatron-nca": megatron_nca.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    return found | {package: _version(package) for package in PACKAGES}


def checks(measured: str, expected: str | None = None) -> list[Check]:
    """Make every check.

    Args:
        measured: This machine's fingerprint.
        expected: What it should be, or None.
    """
    found = [_checked("complexity score", known_sizes.check_sizes, "sizes the known inputs as every machine does")]
    found.append(_checked("engines", _compare_engines, "the compiled engine makes the reference's tokens"))
    found += [_kernel_cache(), _megatron_core(), _megatron_lm(), _transformer_engine()]
    if expected is not None:
        detail = "as expected" if measured == expected else f"is {measured}, expected {expected}; run every node from one image"
        found.append(Check("fingerprint", OK_MARK if measured == expected else FAILED, detail))
    return found


def _checked(name: str, action: Callable[[], object], detail: str) -> Check:
    try:
        action()
    except EnvironmentMismatchError as error:
        return Check(name, FAILED, str(error))
    return Check(name, OK_MARK, detail)


def _compare_engines() -> None:
    config = NCAConfig()
    compiled, reference = (NCASource(config, engine=engine).tokens_batch(range(4), 400) for engine in ("compiled", "reference"))
    if not np.array_equal(compiled, reference):
        raise EnvironmentMismatchError(
            "compiled and reference engine differ on this machine; remove numba's cache, and report it if that does not help"
        )


def _kernel_cache() -> Check:
    from megatron_nca.automaton import production

    dispatcher: Any = production.produce
    folder = getattr(dispatcher._cache, "cache_path", None)
    if folder is None:
        return Check(
            "kernel cache", ABSENT, "no folder to write to, so every process compiles for seconds; set NUMBA_CACHE_DIR to one"
        )
    kept = len(list(Path(folder).glob("*.nbc")))
    return Check("kernel cache", OK_MARK, f"{kept} kernels in {folder}")


def _megatron_core() -> Check:
    from megatron_nca.data import hook

    try:
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder as Builder
    except ImportError as error:
        detail = f"cannot be imported ({error}); where training runs: pip install 'megatron-nca[megatron]'"
        return Check("Megatron-Core", ABSENT, detail)
    return _checked(
        "Megatron-Core", lambda: hook.check_version(Builder), f"{_version('megatron-core')}, its dataset builder is one we know"
    )


def _megatron_lm() -> Check:
    if is_importable("megatron.training"):
        return Check("Megatron-LM", OK_MARK, "megatron.training can be imported")
    # Megatron-LM is no package; a launch has its checkout as the script's folder.
    return Check("Megatron-LM", ABSENT, "megatron.training is not on the path; pretrain_gpt.py's measured folder brings it")


def _transformer_engine() -> Check:
    version = _version("transformer-engine")
    if version is None:
        return Check("Transformer Engine", ABSENT, "not installed; needed for FP8 only")
    if not extra_state.is_refused(version, {}):
        return Check("Transformer Engine", OK_MARK, version)
    is_set = "is" if os.environ.get(extra_state.VARIABLE) == "1" else "is not"
    detail = f"{version}; resumes FP8 delayed scaling only under {extra_state.VARIABLE}=1, which {is_set} set here"
    return Check("Transformer Engine", OK_MARK, detail)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(found: list[Check], measured: str) -> None:
    listed = versions()
    width = max(map(len, [*listed, *(check.name for check in found)]))
    for package, version in listed.items():
        print(f"{package:<{width}}  {version or 'not installed'}")
    print()
    for check in found:
        print(f"{check.name:<{width}}  {check.state:<6}  {check.detail}")
    print("\nwhat a launch replaces")
    for seam in SEAMS:
        print(f"{seam.stack:<{width}}  {seam.versions:<12}  {seam.module}.{seam.symbol}: {seam.why}")
    print(f"\nfingerprint  {measured}")
    sys.stdout.flush()
