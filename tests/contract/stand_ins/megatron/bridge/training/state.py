from dataclasses import dataclass

import torch


@dataclass
class TrainState:
    step: int = 0
    consumed_train_samples: int = 0

    def state_dict(self):
        return {name: torch.tensor(getattr(self, name)) for name in ("step", "consumed_train_samples")}

    def load_state_dict(self, state):
        for name in ("step", "consumed_train_samples"):
            setattr(self, name, state[name].item())
