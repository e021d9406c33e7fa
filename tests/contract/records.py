"""The record in a checkpoint of each stack, and where the run that is resumed has its switch and checkpoints."""

import copy
import json

from tests.contract.machine import BATCH, SWITCH_STEP

SWITCH = SWITCH_STEP * BATCH
SAVED = (5, SWITCH_STEP, 15)
PLACES = {"before": 5, "at": SWITCH_STEP, "behind": 15}


def record_of(stack, checkpoint):
    """The record in a checkpoint, as a dict to look at and to spoil; the second value writes it back."""
    own = checkpoint.stacks_own
    name = stack.stack.name
    if name == "Megatron-LM":
        return own.nca_curriculum, lambda state: setattr(own, "nca_curriculum", state)
    if name == "Megatron-Bridge":
        import torch

        def write(state):
            own["nca_curriculum"] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)

        return json.loads(bytes(own["nca_curriculum"].tolist())), write
    if name == "NeMo":
        return own["record"], lambda state: own.__setitem__("record", state)

    def replace_own(state):
        checkpoint.stacks_own = state

    return own, replace_own


def without_record(stack, checkpoint):
    """The checkpoint of a run without megatron-nca."""
    plain = copy.deepcopy(checkpoint)
    name = stack.stack.name
    if name == "Megatron-LM":
        del plain.stacks_own.nca_curriculum
    elif name == "Megatron-Bridge":
        del plain.stacks_own["nca_curriculum"]
    else:
        plain.stacks_own = {} if name == "NeMo" else None
    return plain
