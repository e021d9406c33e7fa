"""Llama 3 8B from NCA to text with FP8, on this machine's GPUs; on SLURM see examples/slurm/nemo_recipe.py.

python examples/nemo/llama3_8b.py /data/text_document --tokenizer /data/tokenizer --folder /results
"""

import argparse

import nemo_run as run
from nemo.collections import llm
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.recipes.precision.mixed_precision import bf16_with_fp8_mixed

from megatron_nca.frameworks.nemo import with_nca


def make_recipe(text: str, tokenizer: str, folder: str) -> run.Partial:
    """Return the recipe; nothing is built and no data is opened."""
    recipe = llm.llama3_8b.pretrain_recipe(dir=folder, name="llama3_8b_nca")
    recipe.trainer.plugins = bf16_with_fp8_mixed()
    # The recipe has mock data; of real data NeMo would take the tokenizer for GPT-2's, and the model's vocabulary with it.
    return with_nca(recipe, "nca:tokens=164M", text, nca_lr=1e-4, tokenizer=run.Config(AutoTokenizer, tokenizer))


def main() -> None:
    """Launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--tokenizer", required=True, help="the text's: a folder, or a name at Hugging Face's hub")
    parser.add_argument("--folder", default="/results", help="checkpoints and logs")
    args = parser.parse_args()
    # Transformer Engine resumes FP8 delayed scaling, whose state is a pickle, only where checkpoints are said to be trusted.
    trusted = {"NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE": "1"}
    executor = run.LocalExecutor(ntasks_per_node=8, launcher="torchrun", env_vars=trusted)
    run.run(make_recipe(args.text, args.tokenizer, args.folder), executor=executor, name="llama3_8b_nca")


if __name__ == "__main__":
    main()
