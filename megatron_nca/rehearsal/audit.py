"""The switch of a run, audited on every rank: `python -m megatron_nca.rehearsal --audited SCRIPT ARGS...`.

Before and after the transition, and after the step that follows it, each rank looks at its own tensors; what is wrong ends the
launch. What was found right is printed as one line that begins with `audit:`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def install() -> None:
    """Have every transition of this process audited."""
    from megatron_nca.training.transition import Transition

    original = Transition.before_step
    audits: dict[int, Audit] = {}

    def before_step(transition: Any, consumed: int, model: Any, optimizer: Any, scheduler: Any) -> bool:
        audit = Audit(transition, model, optimizer)
        crossed = original(transition, consumed, model, optimizer, scheduler)
        if crossed:
            audit.check_switch()
            audits[id(transition)] = audit
        elif id(transition) in audits:
            audits.pop(id(transition)).check_step()
        return crossed

    Transition.before_step = before_step  # type: ignore[method-assign, assignment]


class Audit:
    """What one rank holds before a transition, to be compared with what it holds afterwards.

    Args:
        transition: The transition.
        model: Megatron's model chunks.
        optimizer: Megatron's optimizer.
    """

    def __init__(self, transition: Any, model: Any, optimizer: Any) -> None:
        from megatron_nca.training import reinit

        self.model, self.optimizer = model, optimizer
        self.targets = reinit._targets(model, transition.settings.reinit)
        self.before = self.values()
        self.masters_before = self.masters()

    def values(self) -> list[torch.Tensor]:
        """Return what this rank holds of the tensors that the transition draws anew."""
        return [local(target.parameter).detach().float().clone() for target in self.targets]

    def check_switch(self) -> None:
        """Check weights, masters, moments and replicas after the transition, and tell."""
        finish_gathers(self.model)
        self.after = self.values()
        for target, old, new in zip(self.targets, self.before, self.after, strict=True):
            # In bfloat16 a few numbers of a small part are the same by chance.
            same = int((old == new).sum())
            assert target.part == "norms" or same <= 2 + old.numel() / 100, f"{target.name} is not new: {same} of {old.numel()}"
        counts = self.check_masters(), self.check_moments(), self.check_replicas()
        self.tell(len(self.targets), *counts)

    def check_masters(self) -> int:
        """MasterWeights hold the weights that the model computes with: the new ones, and others that did so before."""
        masters = self.masters()
        drawn = {target.parameter for target in self.targets}
        new = {name for name, parameter in self.parameters() if parameter in drawn}
        worse = [name for name, equal in masters.items() if (name in new or self.masters_before[name]) and not equal]
        assert not worse, f"masters are other weights: {worse}"
        return sum(masters.values())

    def masters(self) -> dict[str, bool]:
        """Return whether each weight that this rank has a master of is the master's value."""
        equal = {}
        for leaf in leaves(self.optimizer):
            for name, parameter in self.parameters():
                master = getattr(parameter, "main_param", None)
                # A quantized weight is another than its master.
                if master is None or type(parameter) is not torch.nn.Parameter or not owns(leaf, parameter):
                    continue
                weight = parameter.detach()
                if getattr(parameter, "main_param_sharded", False):
                    held = leaf._get_model_param_range_map(parameter)["param"]
                    weight = weight.reshape(-1)[held.start : held.end]
                equal[name] = torch.equal(master.detach().to(weight.dtype).reshape(-1), weight.reshape(-1))
        return equal

    def parameters(self) -> Iterator[tuple[str, Any]]:
        """Every parameter of every chunk, by name."""
        for number, chunk in enumerate(self.model):
            yield from ((f"{number}.{name}", parameter) for name, parameter in chunk.named_parameters())

    def check_moments(self) -> int:
        """Moments are zero; returns how many there are."""
        seen = 0
        for leaf in leaves(self.optimizer):
            for state in getattr(leaf, "optimizer", leaf).state.values():
                for key in MOMENTS:
                    if key in state:
                        assert not local(state[key]).float().any(), f"{key} is not zero"
                        seen += 1
        return seen

    def check_replicas(self) -> int:
        """Ranks that hold the same part of a new weight hold the same values.

        Other weights may be waiting for the next forward pass to gather what other ranks have updated.
        """
        from megatron.core import parallel_state

        dense = parallel_state.get_data_parallel_group(with_context_parallel=True)
        seen = 0
        for target, ours in zip(self.targets, self.after, strict=True):
            group = parallel_state.get_expert_data_parallel_group() if target.is_expert else dense
            if hasattr(target.parameter, "to_local") or torch.distributed.get_world_size(group) == 1:
                continue
            first = ours.clone()
            torch.distributed.broadcast(first, torch.distributed.get_global_rank(group, 0), group=group)
            assert torch.equal(first, ours), f"{target.name} differs between replicas"
            seen += 1
        return seen

    def check_step(self) -> None:
        """Check that a step moved each weight a little; one nearer to what it was before the transition has been taken back."""
        for target, old, new, now in zip(self.targets, self.before, self.after, self.values(), strict=True):
            assert old.numel() == 0 or (now - new).norm() <= 0.5 * (now - old).norm() + 1e-6, f"{target.name} went back"
        print("audit: nothing went back after a step", flush=True)

    def tell(self, targets: int, masters: int, moments: int, replicas: int) -> None:
        """Print the counts of what was found right."""
        rank = torch.distributed.get_rank()
        print(
            f"audit: rank {rank}: {targets} new, {masters} masters equal, {moments} moments zero, {replicas} replicas equal",
            flush=True,
        )


def finish_gathers(model: Any) -> None:
    """Wait for the weights that Megatron-FSDP gathers ahead of the coming forward pass, which waits for them itself."""
    for chunk in model:
        pipeline: Any = getattr(getattr(chunk, "module", None), "all_gather_pipeline", None)
        for bucket in list(getattr(pipeline, "param_gather_event_map", ())):
            pipeline.wait_bucket_ready(*bucket)


def local(tensor: Any) -> Any:
    """Return what this rank holds of a DTensor; any other tensor as it is."""
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return tensor.dequantize() if hasattr(tensor, "dequantize") and "Float8" in type(tensor).__name__ else tensor


def leaves(optimizer: Any) -> list[Any]:
    """Return the optimizers that hold state."""
    from megatron_nca.training.optimizer import leaves as all_of

    return list(all_of(optimizer))


def owns(leaf: Any, parameter: Any) -> bool:
    """Return whether an optimizer holds a parameter's state."""
    owned = getattr(leaf, "model_param_gbuf_map", None)
    if owned is not None:
        return parameter in owned
    return any(parameter is other for group in getattr(leaf, "float16_groups", []) for other in group)
