"""The published run (arXiv:2603.10055) as a NeMo recipe: 164M NCA tokens in batches of 32, then text in batches of 512.

python examples/paper/nemo_pretrain.py /data/owt_text_document --folder /results          # --nca '' for the text alone
"""

import argparse

import nemo_run as run
from nemo.collections import llm
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

from megatron_nca.frameworks.nemo import with_nca

NCA = "nca:tokens=164M,batch=32"
NCA_STEPS, TEXT_STEPS = 5_005, 17_166
"""Optimizer steps of each phase; those of text are 9B tokens, which is our choice and not the paper's."""


def make_recipe(text: str, folder: str, nca: str = NCA, tokenizer: str = "gpt2") -> run.Partial:
    """Return the recipe; nothing is built and no data is opened."""
    recipe = llm.llama32_1b.pretrain_recipe(dir=folder, name="nca_paper" if nca else "scratch_paper")
    shape = {"num_layers": 24, "hidden_size": 2048, "ffn_hidden_size": 8192, "num_attention_heads": 32, "num_query_groups": 32}
    for name, value in {**shape, "seq_length": 1024, "share_embeddings_and_output_weights": False}.items():
        setattr(recipe.model.config, name, value)
    recipe.trainer.max_steps = TEXT_STEPS + (NCA_STEPS if nca else 0)
    recipe.data = run.Config(
        llm.PreTrainingDataModule, paths=[text], seq_length=1024, micro_batch_size=4, global_batch_size=512,
        tokenizer=run.Config(AutoTokenizer, tokenizer),
    )  # fmt: skip
    recipe.optim.config.lr = 5e-4
    recipe.optim.lr_scheduler.warmup_steps = TEXT_STEPS // 10
    recipe.optim.lr_scheduler.min_lr = 5e-5
    return with_nca(recipe, nca, text, nca_lr=1e-4) if nca else recipe


def main() -> None:
    """Launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--folder", default="/results", help="checkpoints and logs")
    parser.add_argument("--nca", default=NCA, help="what comes before the text; empty for nothing")
    parser.add_argument(
        "--tokenizer", default="gpt2", help="the text's: a folder, or a name at Hugging Face's hub (default: gpt2)"
    )
    args = parser.parse_args()
    executor = run.LocalExecutor(ntasks_per_node=8, launcher="torchrun")
    run.run(make_recipe(args.text, args.folder, args.nca, args.tokenizer), executor=executor, name="nca_paper")


if __name__ == "__main__":
    main()
