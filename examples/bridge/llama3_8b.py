"""Llama 3 8B from NCA to text with FP8, by Megatron-Bridge.

torchrun --nproc-per-node 8 examples/bridge/llama3_8b.py /data/text_document --tokenizer /data/tokenizer nca.lr=1e-4
"""

import argparse
from typing import Any

from megatron.bridge.recipes.llama import llama3
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain
from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

from megatron_nca.frameworks.megatron_bridge import with_nca


def make_config(text: str, folder: str, tokenizer: str | None = None) -> Any:
    """Return the recipe's config; nothing is built and no data is opened."""
    config = llama3.llama3_8b_pretrain_config()
    if tokenizer is not None:
        # The recipe names a NullTokenizer of 32,000 ids, whose end of a document is a word of the text's.
        config.tokenizer.tokenizer_type, config.tokenizer.tokenizer_model = "HuggingFaceTokenizer", tokenizer
    config.mixed_precision = "bf16_with_fp8_current_scaling_mixed"
    config.checkpoint.save = config.checkpoint.load = f"{folder}/checkpoints"
    config.logger.tensorboard_dir = f"{folder}/tensorboard"
    return with_nca(config, "nca:tokens=164M", text)


def main() -> None:
    """Launch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="prefix of an indexed dataset")
    parser.add_argument("--tokenizer", help="the text's: a folder, or a name at Hugging Face's hub (default: the recipe's)")
    parser.add_argument("--folder", default="/results", help="checkpoints and logs")
    args, overrides = parser.parse_known_args()
    config = process_config_with_overrides(make_config(args.text, args.folder, args.tokenizer), cli_overrides=overrides)
    pretrain(config, forward_step)


if __name__ == "__main__":
    main()
