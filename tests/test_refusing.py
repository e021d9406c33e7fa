"""What a launch prints that is refused on every rank alike."""

import subprocess
import sys
import time

import pytest

from megatron_nca import refusing

REFUSED = """
from megatron_nca.errors import NCAError
from megatron_nca.refusing import alike_on_every_rank, install
install()
install()
with {context}:
    raise NCAError("this cannot work; do that")
"""


def end(rank, context="alike_on_every_rank()"):
    program = REFUSED.format(context=context)
    if context != "alike_on_every_rank()":
        program = "from contextlib import nullcontext\n" + program
    return subprocess.run([sys.executable, "-c", program], env={"RANK": str(rank)}, capture_output=True, text=True, check=False)


def test_rank_0_tells_in_one_line_and_the_others_end_silently():
    first, other = end(0), end(1)
    assert first.stderr == "megatron-nca: NCAError: this cannot work; do that\n"
    assert other.stderr == other.stdout == first.stdout == ""
    assert first.returncode == other.returncode == 1


def test_an_error_of_one_rank_is_told_by_that_rank_as_ever():
    other = end(1, "nullcontext()")
    assert other.stderr.startswith("Traceback")
    assert "this cannot work" in other.stderr


def test_other_ranks_leave_rank_0_the_time_to_tell():
    begin = time.monotonic()
    end(1)
    assert time.monotonic() - begin >= refusing.GRACE_SECONDS


def test_an_error_goes_on_as_itself():
    from megatron_nca.errors import CurriculumError

    with pytest.raises(CurriculumError) as raised, refusing.alike_on_every_rank():
        raise CurriculumError("wrong")
    assert raised.value.is_of_every_rank
    assert not CurriculumError("another").is_of_every_rank
