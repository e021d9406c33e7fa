"""A NeMo recipe from NCA to text on a SLURM cluster, by NeMo-Run; FP8 where --fp8 is given.

    python examples/slurm/nemo_recipe.py /data/text_document --tokenizer /data/tokenizer --account ACCOUNT --folder /results

Run it on a login node; --nodes 4 makes jobs of four nodes. --jobs 3 submits a chain: jobs of one name wait for each other
(--dependency=singleton), and each goes on from the last checkpoint in --folder. Five minutes before its time limit a job gets a
signal, saves and ends, so that the next one begins; a job that is preempted, or whose ranks die, is queued again under its own
number. --dry-run submits nothing.
"""

import argparse
import copy
import os
import secrets
import signal
from typing import Any

import nemo_run as run
from nemo.collections import llm
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.recipes.precision.mixed_precision import bf16_with_fp8_mixed
from nemo.lightning.pytorch.callbacks import PreemptionCallback
from nemo_run.config import get_nemorun_home

from megatron_nca.frameworks.nemo import with_nca

SECONDS_TO_SAVE = 300
# SLURM signals every process of a step. SIGTERM, the default of NeMo's PreemptionPlugin, ends the process through which
# Megatron-Core's checkpoint writers speak, and the save fails; this one is heeded by the callback and by nothing else.
SAVE_SIGNAL = signal.SIGURG
# Hundreds of ranks must not lock the caches of compiled kernels on a shared file system: each node has its own. They are
# code that is run, so their folder has a name that nobody could make before.
PRIVATE = f"/tmp/nca-$SLURM_JOB_ID-{secrets.token_hex(16)}"
NODE_LOCAL_CACHES = {"NUMBA_CACHE_DIR": f"{PRIVATE}/numba", "TRITON_CACHE_DIR": f"{PRIVATE}/triton"}
# Transformer Engine refuses to resume FP8 delayed scaling, whose state is a pickle, unless told that the run's own are trusted.
TRUSTED = {"NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "1"}


def make_recipe(args: argparse.Namespace) -> run.Partial:
    """Return the recipe; nothing is built and no data is opened."""
    recipe = getattr(llm, args.recipe).pretrain_recipe(dir=args.folder, name=args.name, num_nodes=args.nodes)
    if args.fp8:
        recipe.trainer.plugins = bf16_with_fp8_mixed()
    recipe.trainer.callbacks.append(run.Config(PreemptionCallback, sig=int(SAVE_SIGNAL)))
    tokenizer = {"tokenizer": run.Config(AutoTokenizer, args.tokenizer)} if args.tokenizer else {}
    return with_nca(recipe, args.entry, args.text, index_mapping_dir=f"{args.folder}/index", **tokenizer)


def make_executor(args: argparse.Namespace) -> run.SlurmExecutor:
    """Return the job: one task a GPU, started by srun itself, so that a signal reaches ranks that no launcher then kills."""
    return run.SlurmExecutor(
        account=args.account,
        partition=args.partition,
        # The chain waits by name, so NeMo-Run must not put the account's before it.
        job_name_prefix="nca-",
        nodes=args.nodes,
        ntasks_per_node=args.gpus_per_node,
        gpus_per_node=args.gpus_per_node,
        time=args.time,
        additional_parameters={"requeue": True, "dependency": "singleton"},
        retries=args.restarts,
        signal=f"{SAVE_SIGNAL:d}@{SECONDS_TO_SAVE}",
        container_image=args.container,
        container_mounts=args.mounts,
        env_vars={**NODE_LOCAL_CACHES, **TRUSTED},
        # On this machine NeMo-Run copies nothing: a job lies where it wrote it, so NEMORUN_HOME must be on a shared disk.
        tunnel=run.LocalTunnel(job_dir=os.path.join(get_nemorun_home(), "experiments")),
        packager=run.Packager(),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--tokenizer", help="the text's: a folder, or a name at Hugging Face's hub (default: NeMo's, GPT-2)")
    parser.add_argument("--account", required=True)
    parser.add_argument("--partition")
    parser.add_argument("--folder", required=True, help="checkpoints and logs, on a shared file system")
    parser.add_argument("--name", default="llama3_8b_nca", help="of the run, the same in every launch of it")
    parser.add_argument("--recipe", default="llama3_8b", help="a module of nemo.collections.llm with a pretrain_recipe")
    parser.add_argument("--entry", default="nca:tokens=164M")
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--time", default="04:00:00", help="limit of a job")
    parser.add_argument("--jobs", type=int, default=1, help="length of the chain")
    parser.add_argument("--restarts", type=int, default=20, help="how often a job may queue itself again")
    parser.add_argument("--container", help="image for pyxis, with megatron-nca installed")
    parser.add_argument(
        "--mounts", nargs="*", default=[], help="pyxis's, OUTSIDE:INSIDE; --folder and the text's must be among them"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the batch script and submit nothing")
    return parser


def submit(task: Any, args: argparse.Namespace) -> None:
    """Submit the chain, and return while it waits in the queue."""
    for _ in range(args.jobs):
        # NeMo-Run changes what it is given.
        run.run(copy.deepcopy(task), make_executor(args), name=args.name, dryrun=args.dry_run, detach=True)


def main() -> None:
    """Launch."""
    args = make_parser().parse_args()
    submit(make_recipe(args), args)


if __name__ == "__main__":
    main()
