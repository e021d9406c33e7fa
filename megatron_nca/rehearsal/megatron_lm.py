"""Runs of Megatron-LM's `pretrain_gpt.py` on the stand-in: described, started, killed at an iteration, read back.

```python
run = Run(find_checkouts()[0], flags=("--data-path", "/data/text_document", "--train-iters", "20"), tensor_parallel=2)
log = run.complete(folder)                    # a TrainingLog
run.kill_at(7, folder)                        # SIGKILL to every process at iteration 7
```

The same flags serve Megatron-LM 0.14 to 0.20; what differs is a table here.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers, extension_suffix
from megatron_nca.rehearsal.ranks import RankedRun

# What has no counterpart outside a GPU.
CPU_FLAGS = (
    *("--transformer-impl", "local"),
    *("--distributed-backend", "gloo"),
    *("--attention-backend", "unfused"),
    "--no-persist-layer-norm",
    "--no-gradient-accumulation-fusion",
    "--no-masked-softmax-fusion",
    "--no-bias-gelu-fusion",
    "--no-rope-fusion",
)

# A model that trains for tens of iterations a second on one core.
TINY_GPT_FLAGS = (
    *("--num-layers", "2"),
    *("--hidden-size", "64"),
    *("--num-attention-heads", "4"),
    *("--seq-length", "64"),
    *("--max-position-embeddings", "64"),
    *("--micro-batch-size", "4"),
    *("--global-batch-size", "8"),
    *("--train-iters", "10"),
    *("--lr", "1e-3"),
    *("--min-lr", "1e-4"),
    *("--lr-decay-style", "cosine"),
    *("--lr-warmup-fraction", "0.2"),
    *("--log-interval", "1"),
    *("--eval-interval", "5"),
    *("--eval-iters", "1"),
    *("--split", "90,5,5"),
    *("--make-vocab-size-divisible-by", "64"),
)

# How many ids NullTokenizer has beside those that --vocab-size counts, by Megatron-LM's version: its end-of-document
# id, the last of all, has been counted since 0.18.
_UNCOUNTED_IDS = {(0, 14): 1, (0, 15): 1, (0, 16): 1, (0, 17): 1}

# The first version that logs a process's first iteration twice: alone, and in a mean with the second.
_FIRST_LOSS_LOGGED_TWICE = (0, 16)


@dataclass(frozen=True)
class Run(RankedRun):
    """A run of `pretrain_gpt.py`. `dataclasses.replace` makes its variants.

    Args:
        checkout: The Megatron-LM to run.
        flags: Flags of this run, at least the data's; they win over the model's.
        tensor_parallel: Tensor-parallel size.
        pipeline_parallel: Pipeline-parallel size.
        data_parallel: Data-parallel size.
        context_parallel: Context-parallel size.
        expert_parallel: Expert-parallel size, within the data- and context-parallel ranks.
        plugin: Whether megatron-nca is registered.
        vocabulary: The number of ids; the last is the end-of-document id, so by default ids are bytes.
        model: Flags of the model and its training.
        python: The interpreter.
        environment: Variables on top of this process's.
        script: The training script, as a path inside the checkout.
        audited: Whether each rank checks its tensors at the switch; see `audit`.
        tokenizer: Flags of the tokenizer in place of `vocabulary`.
    """

    checkout: Checkout
    flags: tuple[str, ...]
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    plugin: bool = True
    vocabulary: int = 256
    model: tuple[str, ...] = TINY_GPT_FLAGS
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    script: str = "pretrain_gpt.py"
    audited: bool = False
    tokenizer: tuple[str, ...] | None = None

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel * self.context_parallel

    @property
    def command(self) -> tuple[str, ...]:
        """The command of every rank."""
        return (
            *(self.python, "-m", "megatron_nca.rehearsal"),
            *(() if self.plugin else ("--plain",)),
            *(("--audited",) if self.audited else ()),
            str(self.checkout.path / self.script),
            *self.model,
            *CPU_FLAGS,
            *self._tokenizer_flags(),
            *("--tensor-model-parallel-size", str(self.tensor_parallel)),
            *("--pipeline-model-parallel-size", str(self.pipeline_parallel)),
            *("--context-parallel-size", str(self.context_parallel)),
            *("--expert-model-parallel-size", str(self.expert_parallel)),
            *self.flags,
        )

    @property
    def second_is_mean(self) -> bool:
        """Whether the log's second line holds a mean; see `parse_log`."""
        return self.checkout.version[:2] >= _FIRST_LOSS_LOGGED_TWICE

    def prepare(self, folder: Path) -> None:
        """Compile the checkout's dataset helpers."""
        compile_helpers(self.checkout, self.python)

    def with_environment(self, environment: Mapping[str, str]) -> "Run":
        """Return the same run with other variables."""
        return replace(self, environment=environment)

    def rank_environment(self, rank: int, port: int, folder: Path) -> dict[str, str]:
        """Return a rank's variables."""
        # Megatron-LM runs make for its dataset helpers, whose Makefile asks the Python first on the path for the name.
        made = {"MAKEFLAGS": f"LIBEXT={extension_suffix(self.python)}"}
        return {**super().rank_environment(rank, port, folder), **made, **self.environment}

    def _tokenizer_flags(self) -> tuple[str, ...]:
        if self.tokenizer is not None:
            return self.tokenizer
        counted = self.vocabulary - _UNCOUNTED_IDS.get(self.checkout.version[:2], 0)
        return ("--tokenizer-type", "NullTokenizer", "--vocab-size", str(counted))
