"""Each stack, driven through its moments in its own order, over the same machine.

The packages are the stand-ins beside this file, or the real ones where they are installed: their classes are used, and the
functions that would need a GPU are replaced before megatron-nca wraps them.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core import num_microbatches_calculator as calculator
from megatron.core.datasets import utils as datasets_utils
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

import megatron_nca
import megatron_nca.rehearsal
from megatron_nca import patching
from megatron_nca.errors import NCAError
from megatron_nca.stacks import BRIDGE, CORE, MEGATRON_LM, NEMO
from megatron_nca.training.options import Options
from megatron_nca.training.run import CustomLoop
from tests.contract.machine import MICRO_BATCH, SEQUENCE, Checkpoint, Launch, Machine, TransferResult, Writer, begin_batches


def read_blend(words: Sequence[str]) -> Any:
    """Read a data path as the stacks do, through the name that megatron-nca has replaced by then."""
    return datasets_utils.get_blend_from_list(list(words))


STAND_INS = Path(__file__).parent / "stand_ins"


def is_real(package: str) -> bool:
    """Tell whether a package is installed, and not a stand-in that an earlier driver has provided."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return False
    return found is not None and not str(found.origin or "").startswith(str(STAND_INS))


def provide(package: str) -> None:
    """See to it that a package can be imported: the real one, or its stand-in."""
    if is_real(package):
        # The real ones ask for a GPU when they are imported; NeMo's do not.
        if package.startswith("megatron."):
            megatron_nca.rehearsal.install()
        return
    if str(STAND_INS) not in sys.path:
        sys.path.append(str(STAND_INS))
    if package.startswith("megatron."):
        # megatron is a package of Megatron-Core's, whose path was fixed when it was imported.
        import megatron

        if str(STAND_INS / "megatron") not in megatron.__path__:
            megatron.__path__.append(str(STAND_INS / "megatron"))
    importlib.invalidate_caches()


def withdraw() -> None:
    """Take the stand-ins away again, and what was imported of them, and begin a new run."""
    import megatron

    for places in (sys.path, megatron.__path__):
        places[:] = [place for place in places if not str(place).startswith(str(STAND_INS))]
    files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
    of_stand_ins = [name for name, file in files.items() if file.startswith(str(STAND_INS))]
    adapters = [
        name for name in files if name.startswith(("megatron_nca.frameworks.nemo", "megatron_nca.frameworks.megatron_b"))
    ]
    for name in [*of_stand_ins, *(adapters if of_stand_ins else [])]:
        del sys.modules[name]
    importlib.invalidate_caches()
    megatron_nca.register().attach(CustomLoop())


class Driver:
    """One stack. ``launch`` does what a start of a run does."""

    stack: Any
    reads_checkpoint_first = True

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.handlers: dict[str, Any] = {}

    def light(self, module: str, name: str, unless: Any = None) -> None:
        """Put a handler of this driver's in a function's place, before megatron-nca wraps it."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            handler = self.handlers.get(name)
            return handler(*arguments, **keywords) if handler else unless

        setattr(importlib.import_module(module), name, call)

    def launch(
        self,
        launch: Launch,
        until: int | None = None,
        checkpoint: Checkpoint | None = None,
        load_optimizer: bool = True,
        save_at: Sequence[int] = (),
        skip: Sequence[int] = (),
    ) -> TransferResult:
        """Start a run, from a checkpoint where there is one, and go on until a step.

        Args:
            launch: What the user gives.
            until: Step to stop after; None for the run's last, 0 for none.
            checkpoint: To go on from.
            load_optimizer: Whether the optimizer's and the scheduler's states are loaded with it.
            save_at: Steps after which a checkpoint is written.
            skip: Steps that the loop passes over, as Megatron-LM's ``--iterations-to-skip``.
        """
        outcome = TransferResult()
        begin_batches(launch)
        until = launch.steps if until is None else until
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                machine = Machine(launch, outcome)
                self.prepare(launch, machine, checkpoint, load_optimizer)
                while machine.step < until:
                    if machine.step + 1 not in skip:
                        self.step(launch, machine)
                    machine.step += 1
                    machine.consumed += machine.batch
                    if machine.step in save_at:
                        outcome.checkpoints[machine.step] = self.save(machine)
            except (NCAError, StopIteration) as error:
                outcome.error = error
        outcome.lines = printed.getvalue().splitlines()
        return outcome

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Do all that comes before the first step."""
        raise NotImplementedError

    def step(self, launch: Launch, machine: Machine) -> None:
        """Do a step."""
        raise NotImplementedError

    def save(self, machine: Machine) -> Checkpoint:
        """Write a checkpoint."""
        raise NotImplementedError

    def scheduler(self, machine: Machine) -> Any:
        """Return the stack's scheduler."""
        return machine.scheduler

    def build(self, launch: Launch, machine: Machine, samples: int | None = None) -> None:
        """Build the datasets as Megatron-LM and Bridge do."""
        own: dict[str, Any] = (
            {"blend": read_blend(launch.path), "split": "90,5,5"}
            if launch.valid is None
            else {"blend_per_split": [read_blend(path) for path in (launch.path, launch.valid, launch.valid)]}
        )
        config = GPTDatasetConfig(
            random_seed=launch.seed, sequence_length=SEQUENCE, tokenizer=launch.tokenizer, reset_position_ids=False,
            reset_attention_mask=False, eod_mask_loss=False, path_to_cache=str(self.cache), **own,
        )  # fmt: skip
        sizes = [samples or launch.samples, BATCH_OF_VALIDATION, BATCH_OF_VALIDATION]
        machine.dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]


BATCH_OF_VALIDATION = 8


class MegatronLM(Driver):
    """Megatron-LM: arguments, checkpoint, datasets, steps."""

    stack = MEGATRON_LM

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        provide("megatron.training")
        self.light("megatron.training.arguments", "validate_args")
        for name in ("check_checkpoint_args", "save_checkpoint"):
            self.light("megatron.training.checkpointing", name)
        for name in ("train_step", "evaluate_and_print_results"):
            self.light("megatron.training.training", name)
        for name in ("get_tensorboard_writer", "get_wandb_writer"):
            self.light("megatron.training.global_vars", name)
        megatron_nca.register()
        self.module = {
            name: importlib.import_module(f"megatron.training.{name}") for name in ("arguments", "checkpointing", "training")
        }

    def args(self, launch: Launch) -> SimpleNamespace:
        """Return Megatron-LM's arguments as its parser leaves them, ours among them."""
        paths: dict[str, Any] = dict.fromkeys(("data_path", "train_data_path", "valid_data_path", "test_data_path"))
        if launch.valid is None:
            paths["data_path"] = list(launch.path)
        else:
            paths |= {f"{split}_data_path": list(launch.valid) for split in ("valid", "test")}
            paths["train_data_path"] = list(launch.path)
        return SimpleNamespace(
            **paths, **{f"nca_{name}": value for name, value in launch.options.items()}, seed=launch.seed, mock_data=False,
            data_args_path=None, per_split_data_args_path=None,
            consumed_train_samples=0, iteration=0, padded_vocab_size=12_032, dataloader_type=launch.loader,
            global_batch_size=launch.batch, micro_batch_size=MICRO_BATCH, eval_iters=1, lr_warmup_fraction=None,
            train_iters=launch.steps, train_samples=launch.samples if launch.in_samples else None,
            tensorboard_log_interval=1, log_interval=1, seq_length=SEQUENCE, lr_decay_iters=None, lr_warmup_iters=0,
            rampup_batch_size=None, step_batch_size_schedule=None,
            lr_wsd_decay_iters=None, decoupled_lr=launch.embedding_lr,
        )  # fmt: skip

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Arguments, checkpoint, datasets."""
        self.handlers = {"get_tensorboard_writer": lambda: Writer(machine.outcome.scalars)}
        self.now = self.args(launch)
        self.module["arguments"].validate_args(self.now)
        self.module["training"].update_train_iters(self.now)
        if checkpoint is not None:
            self.module["checkpointing"].check_checkpoint_args(checkpoint.stacks_own)
            self.now.consumed_train_samples, self.now.iteration = checkpoint.consumed, checkpoint.step
            machine.load(checkpoint, machine.scheduler, load_optimizer)
        self.build(launch, machine, self.now.train_samples or self.now.train_iters * self.now.global_batch_size)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Megatron-LM's train_step, and a validation after it."""
        machine.ask_for_the_batch()
        self.now.curr_iteration = machine.step
        self.now.consumed_train_samples = machine.consumed

        def train_step(forward_step: Any, *_: Any) -> None:
            machine.train(forward_step)
            machine.scheduler.step(machine.batch)

        self.handlers["train_step"] = train_step
        training = self.module["training"]
        training.train_step(machine.forward_steps(), None, [machine.model], machine.optimizer, machine.scheduler, None)
        training.evaluate_and_print_results("iteration", None, None, [machine.model], machine.step + 1)

    def save(self, machine: Machine) -> Checkpoint:
        """Megatron-LM keeps its arguments."""
        written = []
        self.now.consumed_train_samples = machine.consumed
        self.handlers["save_checkpoint"] = lambda *_: written.append(copy.deepcopy(self.now))
        self.module["checkpointing"].save_checkpoint(machine.step, None, None, None, 0)
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), written[0])


class Bridge(Driver):
    """Megatron-Bridge: overrides, callbacks, setup, checkpoint, datasets, steps between callbacks."""

    stack = BRIDGE

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        # Those that wait for an import of Bridge would wrap what is replaced here.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, patching._Finder)]
        provide("megatron.bridge")
        self.light("megatron.bridge.training.setup", "setup")
        self.light("megatron.bridge.data.loaders", "setup_data_iterators")
        self.light("megatron.bridge.training.train", "train_step")
        self.light("megatron.bridge.training.utils.omegaconf_utils", "parse_hydra_overrides")
        self.callbacks = importlib.import_module("megatron.bridge.training.callbacks")
        self.state = importlib.import_module("megatron.bridge.training.state")
        megatron_nca.register()
        self.module = {
            "setup": importlib.import_module("megatron.bridge.training.setup"),
            "loaders": importlib.import_module("megatron.bridge.data.loaders"),
            "train": importlib.import_module("megatron.bridge.training.train"),
            "overrides": importlib.import_module("megatron.bridge.training.utils.omegaconf_utils"),
        }

    def config(self, launch: Launch) -> SimpleNamespace:
        """Return as much of Bridge's config as is looked at."""
        own = {"blend": read_blend(launch.path), "blend_per_split": None}
        if launch.valid is not None:
            splits = (launch.path, launch.valid, launch.valid)
            own = {"blend": None, "blend_per_split": [read_blend(path) for path in splits]}
        train = SimpleNamespace(
            train_iters=launch.samples // launch.batch,
            train_samples=launch.samples if launch.in_samples else None,
            global_batch_size=launch.batch, micro_batch_size=MICRO_BATCH, eval_iters=1,
        )  # fmt: skip
        return SimpleNamespace(
            # The seed of the data is the dataset's own, whatever the model's is.
            rng=SimpleNamespace(seed=77), train=train, scheduler=SimpleNamespace(lr_warmup_fraction=None),
            dataset=SimpleNamespace(dataloader_type=launch.loader, seq_length=SEQUENCE, **own),
            logger=SimpleNamespace(tensorboard_log_interval=1, log_interval=1),
            model=SimpleNamespace(vocab_size=12_000, should_pad_vocab=True, make_vocab_size_divisible_by=64,
                                  tensor_model_parallel_size=1),
        )  # fmt: skip

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Overrides, callbacks, setup, checkpoint, datasets."""
        words = [BRIDGE.option(name, value) for name, value in launch.options.items()]
        self.module["overrides"].parse_hydra_overrides(None, words)
        self.manager = self.callbacks.normalize_callbacks(None)
        self.train_state = self.state.TrainState()
        self.global_state = SimpleNamespace(
            cfg=self.config(launch), train_state=self.train_state, wandb_logger=None,
            tensorboard_logger=Writer(machine.outcome.scalars),
        )  # fmt: skip
        self.module["setup"].setup(self.global_state, None)
        if checkpoint is not None:
            self.train_state.load_state_dict(checkpoint.stacks_own)
            machine.load(checkpoint, machine.scheduler, load_optimizer)
        self.handlers["setup_data_iterators"] = lambda *_: self.build(launch, machine)
        self.module["loaders"].setup_data_iterators(self.global_state.cfg, self.train_state, 1, None, None)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Bridge's train_step between its callbacks, and a validation after it."""
        machine.ask_for_the_batch()
        self.train_state.step, self.train_state.consumed_train_samples = machine.step, machine.consumed
        context = SimpleNamespace(
            state=self.global_state, model=[machine.model], optimizer=machine.optimizer, scheduler=machine.scheduler
        )

        def train_step(forward_step: Any, *_: Any) -> None:
            machine.train(forward_step)
            machine.scheduler.step(machine.batch)

        self.handlers["train_step"] = train_step
        for event in ("on_train_step_start", None, "on_train_step_end"):
            if event is None:
                self.module["train"].train_step(machine.forward_steps(), None, None, None, None, self.global_state)
                continue
            for moment in self.manager.list_callbacks(event):
                moment(context)
        self.train_state.step += 1
        for moment in self.manager.list_callbacks("on_eval_end"):
            moment(context)

    def save(self, machine: Machine) -> Checkpoint:
        """Bridge keeps its train state."""
        self.train_state.step, self.train_state.consumed_train_samples = machine.step, machine.consumed
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), self.train_state.state_dict())


class NeMo(Driver):
    """NeMo: the data module's setup builds the datasets, then the checkpoint is read, then Lightning's moments."""

    stack = NEMO
    reads_checkpoint_first = False
    names_checkpoint = True
    """Whether NeMo's resume says which checkpoint there is; Lightning's fit(ckpt_path=...) does not."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        provide("lightning")
        provide("nemo")
        # NeMo's own counts nothing outside of its strategy.
        sampler = importlib.import_module("nemo.lightning.pytorch.plugins.data_sampler").MegatronDataSampler
        if not patching.is_patched(sampler, "compute_consumed_samples"):
            sampler.compute_consumed_samples = lambda self, steps=0: (
                self.init_consumed_samples + steps * self.micro_batch_size * calculator.get_num_microbatches()
            )
        self.nemo = importlib.import_module("megatron_nca.frameworks.nemo")
        self.schedulers = importlib.import_module("nemo.core.optim.lr_scheduler")

    def on_disk(self, checkpoint: Checkpoint | None) -> Path | None:
        """Write a checkpoint's common part where NeMo's resume finds it."""
        if checkpoint is None or not self.names_checkpoint:
            return None
        weights = self.cache / f"step={checkpoint.step}" / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        torch.save({"callbacks": {"NCACallback": checkpoint.stacks_own}}, weights / "common.pt")
        return weights.parent

    def scheduler(self, machine: Machine) -> Any:
        """Return NeMo's, of steps."""
        return self.annealing

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """Datasets, checkpoint, the start of training."""
        paths: Any = list(launch.path)
        if launch.valid is not None:
            paths = {"train": paths, "validation": list(launch.valid), "test": list(launch.valid)}
        self.data = self.nemo.NCADataModule(
            paths, seq_length=SEQUENCE, tokenizer=launch.tokenizer, micro_batch_size=MICRO_BATCH,
            global_batch_size=launch.batch, seed=launch.seed, index_mapping_dir=str(self.cache),
            dataloader_type=launch.loader, **{f"nca_{name}": value for name, value in launch.options.items()},
        )  # fmt: skip
        # Lightning logs to its loggers through the module, on rank 0.
        log = Writer(machine.outcome.scalars)
        self.module = SimpleNamespace(log=lambda name, value, **_: log.add_scalar(name, value, machine.step + 1))
        self.annealing = self.schedulers.CosineAnnealing(
            machine.optimizer.optimizer, max_steps=launch.steps, warmup_steps=2, min_lr=1e-5
        )
        self.trainer = SimpleNamespace(
            ckpt_path=self.on_disk(checkpoint),
            max_steps=launch.steps, global_step=0, callbacks=[], limit_val_batches=1, sanity_checking=False,
            log_every_n_steps=1,
            optimizers=[SimpleNamespace(mcore_optimizer=machine.optimizer)],
            lr_scheduler_configs=[SimpleNamespace(scheduler=self.annealing)],
            strategy=_strategy(
                megatron_parallel=[machine.model], cluster_environment=SimpleNamespace(global_rank=lambda: 0)
            ),
            loggers=[SimpleNamespace(log_metrics=log.add_scalars)],
            val_check_interval=5, limit_test_batches=1,
        )  # fmt: skip
        self.data.trainer = self.data.data_sampler.trainer = self.trainer
        self.data.setup()
        machine.dataset = self.data._train_ds
        [self.callback] = self.trainer.callbacks
        if checkpoint is not None:
            machine.load(checkpoint, self.annealing, load_optimizer)
            self.callback.load_state_dict(checkpoint.stacks_own)
            self.trainer.global_step = checkpoint.step
            self.data.data_sampler.init_consumed_samples = checkpoint.consumed
        self.data.train_dataloader()
        if machine.consumed >= len(machine.dataset):
            raise RuntimeError(f"no samples left to consume: {machine.consumed}, {len(machine.dataset)}")
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, launch: Launch, machine: Machine) -> None:
        """A batch between Lightning's moments, its micro-batches between NeMo's, and a validation after it."""
        self.trainer.global_step = machine.step
        self.callback.on_train_batch_start(self.trainer, self.module, None, machine.step)
        forward_step = machine.forward_steps()

        def shown_forward_step() -> Any:
            losses, loss_function = forward_step()
            self.callback.on_megatron_microbatch_end(
                step=SimpleNamespace(forward_only=False), batch={"loss_mask": loss_function.args[0]}, forward_callback=None,
                output=losses,
            )  # fmt: skip
            return losses, loss_function

        machine.train(shown_forward_step)
        self.annealing.step()
        self.trainer.global_step = machine.step + 1
        self.callback.on_train_batch_end(self.trainer, self.module, None, None, machine.step)
        self.callback.on_validation_end(self.trainer, self.module)

    def save(self, machine: Machine) -> Checkpoint:
        """Lightning keeps the states of callbacks."""
        return Checkpoint(
            machine.step, machine.consumed, machine.states(self.annealing), copy.deepcopy(self.callback.state_dict())
        )


def _strategy(**attributes: Any) -> Any:
    """Return a strategy of the class that the real sampler asks for, or of none where that is a stand-in."""
    if not is_real("nemo"):
        return SimpleNamespace(**attributes)
    from nemo.lightning.pytorch.strategies import MegatronStrategy
    from nemo.utils import AppState

    AppState().data_parallel_size = 1
    strategy = object.__new__(MegatronStrategy)
    vars(strategy).update(attributes)
    return strategy


class Own(Driver):
    """A loop of one's own on Megatron-Core."""

    stack = CORE

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        self.run = megatron_nca.register()

    def prepare(self, launch: Launch, machine: Machine, checkpoint: Checkpoint | None, load_optimizer: bool) -> None:
        """What a script does."""
        self.run.attach(CustomLoop())
        self.run.validate(Options.read(dict(launch.options)))
        if checkpoint is None:
            self.run.restore(None, 0)
        else:
            machine.load(checkpoint, machine.scheduler, load_optimizer)
            self.run.restore(checkpoint.stacks_own, checkpoint.consumed)
        self.build(launch, machine)

    def step(self, launch: Launch, machine: Machine) -> None:
        """Ours, forward, backward, update."""
        machine.ask_for_the_batch()
        scalars = self.run.before_step(machine.consumed, [machine.model], machine.optimizer, machine.scheduler)
        for name, value in scalars.items():
            machine.outcome.scalars.setdefault(name, {})[machine.step + 1] = value
        machine.train(machine.forward_steps())
        machine.scheduler.step(machine.batch)

    def save(self, machine: Machine) -> Checkpoint:
        """A script keeps the record as it likes."""
        record = self.run.state_dict(machine.consumed)
        return Checkpoint(machine.step, machine.consumed, machine.states(machine.scheduler), record)


DRIVERS = {driver.stack.name: driver for driver in (MegatronLM, Bridge, NeMo, Own)}
