"""Pack what a bare machine needs into parts below 64 MB: on a machine with a network, `make hopper-pack`.

    python -m benchmarks.hopper.pack out/hopper --megatron-lm core_v0.16.1 core_v0.19.0 --wheels out/hopper-wheels

`--wheels` names a folder with the wheels of `transformer_engine_torch`, built against the bare machine's PyTorch and CUDA, and
of `transformer_engine_cu13`; without it only the Python parts are packed, for a rehearsal on a CPU. `docs/hopper.md` tells how
the wheels are made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from benchmarks.hopper.shrink import shrink

LIMIT = 64 << 20
ARCHITECTURE = 90
ROOT = Path(__file__).parents[2]
PYTHON_PARTS = (
    *("einops", "onnx", "onnxscript", "onnx_ir", "ml_dtypes", "protobuf", "packaging", "regex", "six", "pybind11"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"),
)
KEPT_OF_MEGATRON_LM = ("megatron", "pretrain_gpt.py", "gpt_builders.py", "model_provider.py", "mamba_builders.py", "LICENSE")
REPOSITORY = ("megatron_nca", "benchmarks", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def pack(folder: Path, engine: str, checkouts: list[Path], wheels: Path | None) -> dict[str, dict[str, object]]:
    """Write the parts and a manifest of them.

    Args:
        folder: Where to.
        engine: Version of Transformer Engine.
        checkouts: Checkouts of Megatron-LM, each named by its tag.
        wheels: A folder with compiled wheels, or None.

    Returns:
        Size and digest of each part.

    Raises:
        ValueError: A part is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        site, compiler = Path(temporary) / "site", Path(temporary) / "numba"
        _install(
            site, [f"transformer_engine=={engine}", *PYTHON_PARTS, *map(str, sorted(wheels.glob("*.whl")) if wheels else ())]
        )
        _install(compiler, ["numba", "llvmlite"])
        for library in site.rglob("libtransformer_engine*.so"):
            library.write_bytes(shrink(library.read_bytes(), ARCHITECTURE))
        for part in (site, compiler):
            _archive(folder / f"{part.name}.tar.xz", {path: path.name for path in sorted(part.iterdir())})
    for checkout in checkouts:
        kept = {path: path.name for name in KEPT_OF_MEGATRON_LM if (path := checkout / name).exists()}
        _archive(folder / f"{checkout.name}.tar.xz", kept)
    _archive(folder / "repository.tar.xz", {ROOT / name: name for name in REPOSITORY})
    manifest = {path.name: _describe(path) for path in sorted(folder.glob("*.tar.xz"))}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _install(site: Path, wanted: list[str]) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *wanted], check=True)


def _archive(target: Path, sources: dict[Path, str]) -> None:
    def without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name or "/.git" in member.name else member

    with tarfile.open(target, "w:xz") as archive:
        for source, name in sources.items():
            archive.add(source, name, filter=without_caches)


def _describe(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    if size > LIMIT:
        raise ValueError(f"{path.name} has {size:,} bytes; a part may have {LIMIT:,}")
    return {"bytes": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--transformer-engine", default="2.11.0", metavar="VERSION")
    parser.add_argument("--megatron-lm", type=Path, nargs="+", default=[], metavar="CHECKOUT")
    parser.add_argument("--wheels", type=Path)
    args = parser.parse_args()
    for name, described in pack(args.folder, args.transformer_engine, args.megatron_lm, args.wheels).items():
        print(f"{name}: {described['bytes']:,} bytes")


if __name__ == "__main__":
    main()
