"""The paper's recipe, made small.

    python -m megatron_nca.rehearsal --plain tests/nemo/launch_paper.py FOLDER TEXT ENTRY STEPS

TEXT is of bytes. All else is what `examples/paper/nemo_pretrain.py` makes of the recipe.
"""

import sys
from pathlib import Path
from typing import Any

# Other distributions have a package of the name `examples`.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/nemo"))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/paper"))

# First: it completes the stand-in of Apex for NeMo.
from tiny_pretrain import Bytes, PrintLosses, layer_spec  # isort: skip

import fiddle
import nemo_pretrain
import nemo_run as run

MODEL = {
    "num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "num_query_groups": 4,
    "seq_length": 64, "make_vocab_size_divisible_by": 64, "transformer_layer_spec": layer_spec,
}  # fmt: skip
GPU_ONLY = (
    "masked_softmax_fusion", "bias_activation_fusion", "bias_dropout_fusion", "gradient_accumulation_fusion",
    "persist_layer_norm", "apply_rope_fusion", "deallocate_pipeline_outputs", "cross_entropy_loss_fusion",
)  # fmt: skip


def change(part: Any, values: dict[str, Any]) -> None:
    """Set fields of a part of the recipe."""
    for name, value in values.items():
        setattr(part, name, value)


def main(folder: str, text: str, entry: str, steps: str) -> None:
    """Pre-train."""
    recipe: Any = nemo_pretrain.make_recipe(text, folder, entry)
    change(recipe.model.config, MODEL | dict.fromkeys(GPU_ONLY, False))
    recipe.model.tokenizer = recipe.data.tokenizer = run.Config(Bytes)
    change(recipe.data, {"seq_length": 64, "micro_batch_size": 4, "global_batch_size": 8})
    change(recipe.data, {"num_workers": 0, "pin_memory": False, "split": "90,5,5"})
    change(recipe.trainer, {"devices": 1, "max_steps": int(steps), "val_check_interval": 5, "log_every_n_steps": 1})
    change(recipe.trainer, {"limit_val_batches": 1, "limit_test_batches": 1, "num_sanity_val_steps": 0})
    recipe.trainer.enable_progress_bar = False
    recipe.trainer.callbacks = [*recipe.trainer.callbacks, run.Config(PrintLosses, None, None)]
    recipe.trainer.strategy.ckpt_async_save = False
    recipe.optim.lr_scheduler.warmup_steps = 2
    fiddle.build(recipe)()


if __name__ == "__main__":
    main(*sys.argv[1:5])
