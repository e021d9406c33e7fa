"""Llama 3 8B from NCA to text with FP8, on this machine's GPUs or on a SLURM cluster, by NeMo-Run.

python examples/nemo/llama3_8b.py /data/text_document
python examples/nemo/llama3_8b.py /data/text_document --slurm-account ACCOUNT --slurm-partition PARTITION --nodes 4
"""

import argparse
from typing import Any

import nemo_run as run
from nemo.collections import llm
from nemo.collections.llm.recipes.precision.mixed_precision import bf16_with_fp8_mixed

from megatron_nca.frameworks.nemo import with_nca


def make_recipe(text: str, nodes: int, folder: str) -> run.Partial:
    """Return the recipe; nothing is built and no data is opened."""
    recipe = llm.llama3_8b.pretrain_recipe(dir=folder, name="llama3_8b_nca", num_nodes=nodes)
    recipe.trainer.plugins = bf16_with_fp8_mixed()
    return with_nca(recipe, "nca:tokens=164M", text, nca_lr=1e-4)


def make_executor(args: argparse.Namespace) -> Any:
    """Return where it runs: here, or a SLURM job whose attempts each go on from the last checkpoint."""
    if args.slurm_account is None:
        return run.LocalExecutor(ntasks_per_node=8, launcher="torchrun")
    return run.SlurmExecutor(
        account=args.slurm_account,
        partition=args.slurm_partition,
        nodes=args.nodes,
        ntasks_per_node=8,
        gpus_per_node=8,
        time="04:00:00",
        # A job that is preempted or whose node fails is queued again by SLURM; a task that fails is started again here.
        additional_parameters={"requeue": True, "signal": "TERM@300", "dependency": "singleton"},
        retries=3,
        container_image=args.container,
        tunnel=run.LocalTunnel(job_dir=args.folder),
        packager=run.Packager(),
    )


def main() -> None:
    """Launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--folder", default="/results", help="checkpoints and logs, on a shared file system")
    parser.add_argument("--slurm-account")
    parser.add_argument("--slurm-partition")
    parser.add_argument("--container", help="image for pyxis, with megatron-nca installed")
    args = parser.parse_args()
    run.run(make_recipe(args.text, args.nodes, args.folder), executor=make_executor(args), name="llama3_8b_nca")


if __name__ == "__main__":
    main()
