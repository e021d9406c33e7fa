"""NCA validation of an untrained GPT, through Megatron-Core's own forward pass, on the CPU stand-in; prints JSON.

    python -m tests.training.validated VOCABULARY ENTRY ...

Never imported: the stand-in is its process's.
"""

# ruff: noqa: E402
import json
import sys

from megatron_nca.rehearsal import install

install()

import torch
from megatron.core import parallel_state
from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer import TransformerConfig

from megatron_nca.data.batches import BatchBoundaries
from megatron_nca.data.curriculum import plan_training, read_blend
from megatron_nca.training.nca_validation import Batches, validate
from tests.conftest import Tokenizer

SEQUENCE = 64


def main(vocabulary: int, entries: list[str]) -> None:
    """Validate twice, and print the results, and what the validation left of the model."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1234)
    model = GPTModel(
        TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=2, masked_softmax_fusion=False),
        get_gpt_layer_local_spec(), vocabulary, SEQUENCE, position_embedding_type="rope",
    )  # fmt: skip
    tokenizer = Tokenizer(vocab_size=vocabulary)
    config = GPTDatasetConfig(
        random_seed=1234, sequence_length=SEQUENCE, tokenizer=tokenizer, blend=(["/text"], None), split="1,1,1",
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
    )  # fmt: skip
    plan = plan_training(read_blend(([*entries, "/text"], None)), SEQUENCE, 100, BatchBoundaries(8))
    before = [parameter.clone() for parameter in model.parameters()]
    model.train()
    found = [validate(plan, [model], Batches(2, 8, 4), config, vocabulary) for _ in range(2)]
    kept = all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    json.dump(
        {
            "repeats": found[0] == found[1],
            "is_training": model.training,
            "is_unchanged": kept and all(parameter.grad is None for parameter in model.parameters()),
            "lines": [result.describe() for result in found[0]],
            "scalars": [result.scalars() for result in found[0]],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
