"""``register()`` beside other packages that replace the same functions, and in loops that never heard of it."""

import functools
import importlib
import logging
from typing import Any

import pytest
from megatron.core import num_microbatches_calculator as calculator

import megatron_nca
from megatron_nca.training.run import CustomLoop
from tests.contract.drivers import DRIVERS
from tests.contract.machine import BATCH, ENTRY, SWITCH_STEP, Launch

NAMES = [name for name in DRIVERS if name not in ("Megatron-Core", "NeMo")]
"""NeMo's functions of a step are methods of our callback."""


def wrapped_by_another(driver: Any):
    """The driver of a stack whose functions another package has wrapped before us; ``reached`` names those called."""

    class Wrapped(driver):
        reached: set[str] = set()  # noqa: RUF012

        def light(self, module, name, unless=None):
            super().light(module, name, unless)
            holder = importlib.import_module(module)
            original = getattr(holder, name)

            @functools.wraps(original)
            def foreign(*arguments, **keywords):
                self.reached.add(name)
                return original(*arguments, **keywords)

            setattr(holder, name, foreign)

    return Wrapped


@pytest.mark.parametrize("name", NAMES)
def test_another_packages_wrapper_hides_nothing_from_us_and_nothing_of_theirs(name, one_rank, text, tmp_path):
    stack = wrapped_by_another(DRIVERS[name])(tmp_path)
    outcome = stack.launch(Launch((ENTRY, text)), until=SWITCH_STEP + 1, save_at=(SWITCH_STEP,))
    assert outcome.error is None
    assert outcome.crossed == [SWITCH_STEP * BATCH]
    assert outcome.scalars["nca/share"][1] == 1
    assert "train_step" in stack.reached


@pytest.mark.parametrize("name", NAMES)
def test_a_registration_after_anothers_wrapper_does_nothing_twice(name, one_rank, text, tmp_path):
    stack = DRIVERS[name](tmp_path)
    module: Any = importlib.import_module(
        f"megatron.{'training.training' if name == 'Megatron-LM' else 'bridge.training.train'}"
    )
    ours = module.train_step
    module.train_step = functools.wraps(ours)(lambda *arguments, **keywords: ours(*arguments, **keywords))
    try:
        megatron_nca.register()
        assert module.train_step.__wrapped__ is ours
        outcome = stack.launch(Launch((ENTRY, text)), until=SWITCH_STEP + 1)
        assert outcome.error is None
        assert sum("switch to text" in line for line in outcome.lines) == 1
    finally:
        module.train_step = ours


def test_a_loop_that_nothing_drives_is_told_once(one_rank, build, text, caplog):
    megatron_nca.register().attach(CustomLoop())
    calculator.unset_num_microbatches_calculator()
    train = build(["nca:tokens=2560", text])[0]
    with caplog.at_level(logging.WARNING):
        for position in (0, 1, 30):
            train[position]
    [line] = [record.getMessage() for record in caplog.records if "nothing undertakes" in record.getMessage()]
    assert "the data go over to text after 20 samples" in line
    assert "restore(None, 0)" in line
