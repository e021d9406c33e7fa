"""The published run (arXiv:2603.10055) by Megatron-Bridge: 164M NCA tokens in batches of 32, then text in batches of 512.

torchrun --nproc-per-node 8 examples/paper/bridge.py /data/owt_text_document --folder /results nca.lr=1e-4
"""

import argparse
from typing import Any

from megatron.bridge.recipes.llama import llama3
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain
from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

from megatron_nca.frameworks.megatron_bridge import with_nca

NCA = "nca:tokens=164M,batch=32"
NCA_STEPS, TEXT_STEPS = 5_005, 17_166
"""Optimizer steps of each phase; those of text are 9B tokens, which is our choice and not the paper's."""


def make_config(text: str, folder: str, nca: str = NCA, tokenizer: str = "gpt2") -> Any:
    """Return the recipe's config; nothing is built and no data is opened."""
    config = llama3.llama32_1b_pretrain_config()
    # The recipe names a NullTokenizer of 32,000 ids, beyond which a text's lie.
    config.tokenizer.tokenizer_type, config.tokenizer.tokenizer_model = "HuggingFaceTokenizer", tokenizer
    shape = {"num_layers": 24, "hidden_size": 2048, "ffn_hidden_size": 8192, "num_attention_heads": 32, "num_query_groups": 32}
    for name, value in {**shape, "seq_length": 1024, "share_embeddings_and_output_weights": False}.items():
        setattr(config.model, name, value)
    config.dataset.seq_length = config.dataset.sequence_length = 1024
    config.dataset.blend = ([text], None)
    config.train.train_iters = TEXT_STEPS + (NCA_STEPS if nca else 0)
    config.train.global_batch_size, config.train.micro_batch_size = 512, 4
    config.optimizer.lr, config.optimizer.min_lr = 5e-4, 5e-5
    config.scheduler.lr_warmup_iters, config.scheduler.lr_decay_iters = TEXT_STEPS // 10, config.train.train_iters
    config.checkpoint.save = config.checkpoint.load = f"{folder}/checkpoints"
    config.logger.tensorboard_dir = f"{folder}/tensorboard"
    return with_nca(config, nca) if nca else config


def main() -> None:
    """Launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--folder", default="/results", help="checkpoints and logs")
    parser.add_argument("--nca", default=NCA, help="what comes before the text; empty for nothing")
    parser.add_argument(
        "--tokenizer", default="gpt2", help="the text's: a folder, or a name at Hugging Face's hub (default: gpt2)"
    )
    args, overrides = parser.parse_known_args()
    config = make_config(args.text, args.folder, args.nca, args.tokenizer)
    config = process_config_with_overrides(config, cli_overrides=overrides)
    pretrain(config, forward_step)


if __name__ == "__main__":
    main()
