"""Stand-in until megatron_nca.training.Transition."""

import torch
from megatron.core.utils import unwrap_model


def apply_transition(learner, settings, course):
    if learner.consumed_samples != course.switch or course.switch == 0:
        return
    from examples.quickstart.optimization import FINAL_LR_SHARE
    model = unwrap_model(learner.model)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    with torch.no_grad():
        for w in (model.embedding.word_embeddings.weight, model.output_layer.weight):
            w.copy_(torch.randn(w.shape, generator=generator) * 0.02)
    for o in learner.optimizer.chained_optimizers:
        o.optimizer.state.clear()
    text = settings.text_steps * settings.global_batch
    s = learner.scheduler
    s.num_steps = 0
    s.max_lr, s.min_lr = settings.lr, settings.lr * FINAL_LR_SHARE
    s.lr_warmup_steps, s.lr_decay_steps = int(settings.warmup * text), text
    for g in learner.optimizer.param_groups:
        g["max_lr"], g["min_lr"] = s.max_lr, s.min_lr
    s.step(0)
