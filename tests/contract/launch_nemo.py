"""NeMo's example of a tiny ``llm.pretrain``, changed by what a scenario changes; prints the learning rate beside each loss.

    python -m megatron_nca.rehearsal --plain tests/contract/launch_nemo.py FOLDER TEXT SETTINGS

SETTINGS is JSON: arguments of the data module, size of the vocabulary, steps, peak rate, whether optimizer states are loaded.
"""

import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/nemo"))

import tiny_pretrain


def change(settings: dict[str, Any]) -> None:
    """Put the changes where the example takes its own."""
    data_module, adam = tiny_pretrain.NCADataModule, tiny_pretrain.OptimizerConfig
    strategy, loads_optimizer = tiny_pretrain.nl.MegatronStrategy, settings["loads_optimizer"]

    def changed_data(paths: Any, **arguments: Any) -> Any:
        return data_module(**{"paths": paths, **arguments, **settings["data"]})

    def changed_adam(**arguments: Any) -> Any:
        return adam(**{**arguments, "lr": settings["lr"] or arguments["lr"]})

    tiny_pretrain.NCADataModule = changed_data
    tiny_pretrain.OptimizerConfig = changed_adam
    # NeMo itself asks whether a strategy is of its class.
    own = {**vars(tiny_pretrain.nl), "MegatronStrategy": functools.partial(strategy, ckpt_load_optimizer=loads_optimizer)}
    tiny_pretrain.nl = SimpleNamespace(**own)
    tiny_pretrain.STEPS = settings["steps"]
    tiny_pretrain.Bytes.vocab_size = settings["vocabulary"]
    tiny_pretrain.Bytes.eod = tiny_pretrain.Bytes.eos_id = settings["vocabulary"] - 1


class PrintSteps(tiny_pretrain.PrintLosses):
    """Prints every step's loss, the rate of the step that follows, and NeMo's count of samples."""

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        """Print in full precision."""
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        print(
            f"LOSS {trainer.global_step} {float(trainer.callback_metrics['reduced_train_loss']).hex()} {rate.hex()}", flush=True
        )
        # What its data module writes into a checkpoint.
        consumed = trainer.datamodule.state_dict()["consumed_samples"]
        print(f"iteration {trainer.global_step}/ | consumed samples: {consumed}", flush=True)


def main() -> None:
    """Pre-train, from the last checkpoint in the folder where there is one."""
    change(json.loads(sys.argv.pop()))
    tiny_pretrain.PrintLosses = PrintSteps
    tiny_pretrain.main()


if __name__ == "__main__":
    main()
