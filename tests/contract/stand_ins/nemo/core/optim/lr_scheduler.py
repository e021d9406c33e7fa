import math


class CosineAnnealing:
    """A schedule of steps with a warm-up and an end, as torch's: it sets the rates of the coming step."""

    def __init__(self, optimizer, max_steps, warmup_steps, min_lr):
        self.optimizer, self.max_steps, self.warmup_steps, self.min_lr = optimizer, max_steps, warmup_steps, min_lr
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = -1
        self.step()

    def get_lr(self):
        step, warmup = self.last_epoch, self.warmup_steps
        if step < warmup:
            return [rate * (step + 1) / (warmup + 1) for rate in self.base_lrs]
        share = min((step - warmup) / (self.max_steps - warmup), 1)
        return [self.min_lr + (rate - self.min_lr) * (1 + math.cos(math.pi * share)) / 2 for rate in self.base_lrs]

    def step(self):
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self):
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state):
        vars(self).update(state)
