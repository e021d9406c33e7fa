"""How long a refused launch takes to say so: seconds until its last rank has ended, and of a core for each rank."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCH = ("--data-path", "nca:tokens=164M", "/data/text_document")
KINDS: dict[str, tuple[str, ...]] = {
    "an option's value": ("--nca-reinit", "head"),
    "an entry's key": ("--data-path", "nca:token=164M", "A"),
    "phases": ("--data-path", "phase:", "A", "phase:", "B"),
    "options without an entry": ("--data-path", "A", "--nca-reinit", "norms"),
    "the loader": ("--dataloader-type", "cyclic"),
    "fine-tuning": ("--sft",),
    "Megatron's own phases": ("--phase-transition-iterations", "5"),
    "hybrid context parallelism": ("--hybrid-context-parallel",),
    "offload": ("--optimizer-cpu-offload",),
    "Megatron-FSDP 2": ("--use-megatron-fsdp", "--megatron-fsdp-version", "2"),
    "weight shards": ("--tensor-parallel-num-weight-shards", "2"),
    "experts in one": ("--nca-reinit", "mlp", "--num-experts", "8", "--moe-single-grouped-weight"),
}
RANKS = (1, 4)


def refuse(script: Path, words: tuple[str, ...], ranks: int) -> tuple[float, float]:
    """Start a launch that is refused.

    Returns:
        Seconds to the end of its last rank, and seconds of a core for each rank.

    Raises:
        SystemExit: A rank's exit code is not 1, or rank 0 does not say why in one line.
    """
    command = (sys.executable, "-m", "megatron_nca", str(script), *LAUNCH, *words)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.monotonic()
    launched = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"RANK": str(rank)})
        for rank in range(ranks)
    ]
    errors = [process.communicate()[1] for process in launched]
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    lines = [len(error.splitlines()) for error in errors]
    if {process.returncode for process in launched} != {1} or lines != [1] + [0] * (ranks - 1):
        raise SystemExit(f"{words}: ended with {[process.returncode for process in launched]}, lines {lines}: {errors[0]}")
    return seconds, used / ranks


def main() -> None:
    """Print a row for each kind of refusal."""
    print(
        "| refused for | " + " | ".join(f"{ranks} rank{'s' if ranks > 1 else ''}, s" for ranks in RANKS) + " | core s a rank |"
    )
    print("|---" * (len(RANKS) + 2) + "|")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "pretrain.py"
        # What Megatron-LM's scripts begin with; a refusal comes before it is run.
        script.write_text("from megatron.training import pretrain\n", encoding="utf-8")
        for kind, words in KINDS.items():
            rows = [refuse(script, words, ranks) for ranks in RANKS]
            print(f"| {kind} | " + " | ".join(f"{seconds:.1f}" for seconds, _ in rows) + f" | {rows[-1][1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
