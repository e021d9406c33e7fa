"""What is to be seen on a Hopper, in stages that each leave a JSON: on the bare machine, from the packed parts.

    python stages.py PARTS WORK --stage a b c d          # on the GPU; this file alone is enough, it unpacks the rest
    python stages.py PARTS WORK --stage a b c --rehearse  # the same on a CPU, with a tiny model

a: import; the emulation beside real kernels, over a switch on Transformer Engine's objects. b: 300M parameters in BF16 and FP8
from NCA to text, and the data loader beside mock data. c: resumes before, at and behind the switch. d: CUDA graphs with the
optimizer in them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

SWITCH, ITERATIONS = 20, 60
REHEARSED_SWITCH, REHEARSED_ITERATIONS = 4, 8
FP8 = ("--fp8-format", "hybrid", "--fp8-recipe")
RECIPES = {"bf16": (), "delayed": (*FP8, "delayed", "--fp8-amax-history-len", "1024", "--fp8-amax-compute-algo", "max"),
           "current": (*FP8, "tensorwise"), "blocks": (*FP8, "blockwise")}  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COMMON = _words(
    """
    --transformer-impl transformer_engine --tokenizer-type NullTokenizer --vocab-size 255 --make-vocab-size-divisible-by 64
    --bf16 --position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear
    --untie-embeddings-and-output-weights --hidden-dropout 0 --attention-dropout 0
    --no-gradient-accumulation-fusion --no-rope-fusion --no-masked-softmax-fusion --use-distributed-optimizer
    --lr 3e-4 --min-lr 3e-5 --lr-decay-style cosine --lr-warmup-fraction 0.1
    --log-interval 1 --eval-interval 100000 --eval-iters 1 --split 90,5,5
    """
)
LARGE = _words(
    """
    --num-layers 24 --hidden-size 1024 --num-attention-heads 16 --seq-length 1024 --max-position-embeddings 1024
    --micro-batch-size 8 --global-batch-size 32 --attention-backend auto
    """
)
TINY = _words(
    """
    --num-layers 2 --hidden-size 128 --ffn-hidden-size 128 --num-attention-heads 4 --seq-length 64
    --max-position-embeddings 64 --micro-batch-size 4 --global-batch-size 8 --attention-backend unfused
    --distributed-backend gloo
    """
)
GRAPHS = ("--cuda-graph-impl", "full_iteration", "--optimizer-cuda-graph", "--no-check-for-nan-in-loss-and-grad")
LIMIT_SECONDS = 540
TEXT = """
import sys
from pathlib import Path
import numpy as np
from megatron_nca.rehearsal.corpus import write_corpus

rng = np.random.default_rng(0)
words = [bytes(rng.integers(97, 123, rng.integers(2, 9)).astype(np.uint8)) for _ in range(500)]
write_corpus(Path(sys.argv[1]), [b" ".join(words[rank % 500] for rank in rng.zipf(1.3, 2000)) for _ in range(400)])
"""


class Machine:
    """Runs of Megatron-LM here.

    Args:
        parts: The packed parts.
        work: A folder for everything.
        rehearse: Whether the CPU stands in for the GPU, and the model is tiny.
    """

    def __init__(self, parts: Path, work: Path, rehearse: bool) -> None:
        self.parts, self.work, self.rehearse = parts, work, rehearse
        self.switch, self.iterations = (REHEARSED_SWITCH, REHEARSED_ITERATIONS) if rehearse else (SWITCH, ITERATIONS)
        self.sequence, self.batch = (64, 8) if rehearse else (1024, 32)
        self._unpack()
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(work / name) for name in ("repository", "site", "numba")),
            "PYTHONUNBUFFERED": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1",
            "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "1",
        }  # fmt: skip

    @property
    def versions(self) -> list[str]:
        """Tags of the Megatron-LMs that were packed."""
        return sorted(path.name for path in self.work.glob("core_v*") if (path / "pretrain_gpt.py").is_file())

    def _unpack(self) -> None:
        for part in sorted(self.parts.glob("*.tar.xz")):
            target = self.work / part.name.removesuffix(".tar.xz")
            if not target.is_dir():
                with tarfile.open(part) as archive:
                    archive.extractall(target, filter="fully_trusted")

    def python(self, *arguments: str, seconds: float = LIMIT_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run Python with the unpacked parts on its path."""
        command = [sys.executable, "-W", "ignore", *arguments]
        try:
            return subprocess.run(
                command, env=self.environment, cwd=self.work, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(command, 124, str(late.stdout or ""), f"longer than {seconds} s")

    def text(self) -> str:
        """Return the prefix of a text of bytes, written once."""
        prefix = self.work / "text"
        if not Path(f"{prefix}.idx").is_file():
            write = TEXT if not self.rehearse else f"from megatron_nca.rehearsal import install; install()\n{TEXT}"
            done = self.python("-c", write, str(prefix))
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
        return str(prefix)

    def train(self, version: str, name: str, flags: tuple[str, ...], plugin: bool = True, data: bool = True) -> dict[str, Any]:
        """Run pretrain_gpt.py; returns losses, milliseconds of an iteration, the line at the switch, and how it ended."""
        entry = f"nca:grid=8,colors=3,gzip=none,trajectory={self.sequence},tokens={self.switch * self.batch * self.sequence}"
        paths = ("--data-path", entry, self.text()) if data else ()
        launcher = ["-m", "megatron_nca.rehearsal" if self.rehearse else "megatron_nca"]
        launcher += ["--plain"] if self.rehearse and not plugin else []
        script = str(self.work / version / "pretrain_gpt.py")
        command = [*launcher, script] if plugin or self.rehearse else [script]
        model = TINY if self.rehearse else LARGE
        self.environment["MASTER_PORT"] = str(20_000 + time.time_ns() % 20_000)
        self._compile_helpers(version)
        began = time.monotonic()
        done = self.python(*command, *model, *COMMON, "--train-iters", str(self.iterations), *paths, *flags)
        log = done.stdout + done.stderr
        (self.work / f"{version}-{name}.log").write_text(log, encoding="utf-8")
        return {**_read(log), "seconds": time.monotonic() - began, "code": done.returncode,
                "error": log[-1500:] if done.returncode else None}  # fmt: skip

    def _compile_helpers(self, version: str) -> None:
        """Megatron-LM runs make for its dataset helpers: it is told the end of the module's name."""
        import sysconfig

        self.environment["MAKEFLAGS"] = f"LIBEXT={sysconfig.get_config_var('EXT_SUFFIX')}"
        code = (
            "import sys; from pathlib import Path; from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers;"
            "compile_helpers(Checkout(Path(sys.argv[1])))"
        )
        done = self.python("-c", code, str(self.work / version))
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])


def _read(log: str) -> dict[str, Any]:
    """Read losses, times and the switch's line from a log."""
    iterations, losses, times, norms = 0, {}, {}, {}
    for line in log.splitlines():
        if " iteration " not in line or "lm loss:" not in line:
            continue
        fields = dict(part.split(":", 1) for part in line.split("|") if ":" in part)
        named = {name.strip(): value.strip() for name, value in fields.items()}
        iterations = int(line.split(" iteration ")[1].split("/")[0])
        losses[iterations] = float(named["lm loss"])
        times[iterations] = float(named["elapsed time per iteration (ms)"])
        norms[iterations] = float(named["grad norm"]) if "grad norm" in named else None
    # Megatron-LM since 0.16 logs a process's first iteration twice: alone, and in a mean with the second.
    for step in sorted(losses)[1:2]:
        del losses[step]
    switch = next((line.strip() for line in log.splitlines() if "switch to text after" in line), None)
    return {"losses": losses, "milliseconds": times, "gradient_norms": norms, "switch": switch}


def stage_a(machine: Machine) -> dict[str, Any]:
    """Import, conformity, one switch."""
    install = "from megatron_nca.rehearsal import install; install();" if machine.rehearse else ""
    imported = machine.python(
        "-c",
        f"{install} import json, torch, importlib.metadata as m, transformer_engine.pytorch as te;"
        "layer = te.Linear(64, 64).cuda(); value = float(layer(torch.randn(32, 64, device='cuda')).norm());"
        "print(json.dumps({'torch': torch.__version__, 'device': torch.cuda.get_device_name(),"
        "'transformer_engine': m.version('transformer_engine'), 'finite': value == value}))",
    )
    recorded = machine.parts / "emulated.pt"
    compared = machine.python("-m", "benchmarks.hopper.conformity", "compare", str(recorded)) if recorded.is_file() else None
    return {"import": _json(imported), "conformity": "no emulated.pt among the parts" if compared is None else _json(compared)}


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    if done.returncode:
        return {"code": done.returncode, "error": done.stderr[-1500:]}
    begin = done.stdout.index("{")
    return json.loads(done.stdout[begin:])


def stage_b(machine: Machine) -> dict[str, Any]:
    """NCA to text under every recipe; the loader and the hook beside mock data."""
    found: dict[str, Any] = {}
    for version in machine.versions:
        for recipe, flags in RECIPES.items():
            found[f"{version} {recipe}"] = machine.train(version, recipe, flags)
        for workers in ("1", "2", "4"):
            shared = ("--num-workers", workers, *RECIPES["delayed"])
            found[f"{version} nca, {workers} workers"] = machine.train(version, f"nca{workers}", shared)
            mock = ("--mock-data", *shared)
            found[f"{version} mock, {workers} workers"] = machine.train(version, f"mock{workers}", mock, False, data=False)
            if machine.rehearse:
                break
    return found


def stage_c(machine: Machine) -> dict[str, Any]:
    """Losses of runs that were resumed before, at and behind the switch, beside one that was not."""
    found: dict[str, Any] = {}
    for version in machine.versions:
        straight = machine.train(version, "straight", RECIPES["delayed"])
        found[f"{version} straight"] = straight
        for at in (machine.switch - 2, machine.switch, machine.switch + 2):
            folder = str(machine.work / f"{version}-saved-{at}")
            saved = (*RECIPES["delayed"], "--save", folder, "--load", folder, "--ckpt-format", "torch_dist")
            machine.train(version, f"saving-{at}", (*saved, "--save-interval", str(at), "--exit-interval", str(at)))
            resumed = machine.train(version, f"resumed-{at}", (*saved, "--save-interval", "100000"))
            shared = straight["losses"].keys() & resumed["losses"].keys()
            resumed["largest_difference"] = max(
                (abs(straight["losses"][step] - resumed["losses"][step]) for step in shared), default=None
            )
            found[f"{version} resumed at {at}"] = resumed
    return found


def stage_d(machine: Machine) -> dict[str, Any]:
    """CUDA graphs of whole iterations, the optimizer's step among them, beside the same without."""
    if machine.rehearse:
        return {"skipped": "CUDA graphs need a GPU"}
    found = {}
    for version in machine.versions:
        found[f"{version} graphs"] = machine.train(version, "graphs", (*RECIPES["current"], *GRAPHS))
        found[f"{version} no graphs"] = machine.train(version, "no-graphs", RECIPES["current"])
    return found


STAGES = {"a": stage_a, "b": stage_b, "c": stage_c, "d": stage_d}


def main() -> None:
    """Run stages; each leaves WORK/stage-X.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    machine = Machine(args.parts.resolve(), args.work.resolve(), args.rehearse)
    for name in args.stage:
        found = STAGES[name](machine)
        (machine.work / f"stage-{name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        failed = [key for key, value in found.items() if isinstance(value, dict) and value.get("code")]
        print(f"stage {name}: {len(found)} results" + (f"; failed: {', '.join(failed)}" if failed else ""))


if __name__ == "__main__":
    main()
