"""Random words through the grammar, and random data paths through Megatron-Core's own builder: right, or one error of ours.

Run as ``python -m benchmarks.fuzz [--entries 1000000] [--paths 20000] [--seed 0]``. A case fails that raises anything but an
NCAError, an error that has no message or several lines, one that takes more than 2 s of this process's time, or that raises
its peak memory by more than 200 MB. Exit code 1 if one does; each is printed so that it can be tried alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from megatron_nca.data.data_path import read_blend
from megatron_nca.errors import NCAError

SECONDS, MEGABYTES = 2.0, 200.0
TEXT_TOKENS = 400_000
KEY_WORDS = (
    "tokens ramp floor batch gzip grid patch colors temperature burn_in dt rules trajectory vocab loss seed rare domain "
    "identity_bias control nonsense"
)
VALUE_WORDS = (
    "nan inf -inf 0 -1 -0.5 1e400 1e-320 0.999999999999999999 0.5 1.5 5% 1K 3M 1T 9T none yes no web math code auto: "
    "auto:/a shared offset:0 offset:-1 offset:99999 frames all patches shuffled dyck 0.5-1.0 0.3-0.4 1-0 nan-nan "
    "0.0-0.001 2 3 4 7 8 12 64 128 1024 4096 0x10 1_000 = \u0663 \uff11 \xe9"
)
KEYS = KEY_WORDS.split()
ODD = [
    *VALUE_WORDS.split(),
    "", " ", "\n", "a\nb", "9" * 19, "9" * 18, "9" * 400, "\0", "\ud800", "1" * 5000,
]  # fmt: skip


def value(draw: random.Random) -> str:
    """Return a value: mostly an odd one."""
    kind = draw.random()
    if kind < 0.7:
        return draw.choice(ODD)
    if kind < 0.9:
        return str(draw.randint(-5, 10 ** draw.randint(1, 20)))
    return "".join(chr(draw.randint(1, 0x2FF)) for _ in range(draw.randint(0, 6)))


def entry(draw: random.Random) -> str:
    """Return an entry or a phase, of few keys so that many are right but for one."""
    pairs = ",".join(f"{draw.choice(KEYS)}={value(draw)}" for _ in range(draw.choice((0, 1, 1, 2, 3))))
    return draw.choice(("nca:", "nca:", "phase:", "NCA:")) + pairs


def data_path(draw: random.Random, texts: list[str]) -> list[str]:
    """Return a whole data path."""
    words: list[str] = []
    for _ in range(draw.randint(1, 4)):
        kind = draw.random()
        if kind < 0.25:
            words.append(f"phase:tokens={draw.randint(1, 20_000)}" + draw.choice(("", ",batch=4", ",ramp=2K,floor=0.1")))
        elif kind < 0.4:
            words.append(f"nca:tokens={draw.randint(1, 20_000)},grid=4")
        elif kind < 0.6:
            words.append(entry(draw))
        if draw.random() < 0.5:
            words.append(draw.choice(("0.3", "0.7", "1", value(draw))))
        words.append(draw.choice((*texts, *texts, "missing", "nca:grid=4", "nca:", "phase:")))
    return words


class Tally:
    """What came of the cases so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failed = 0
        self.slowest = self.largest = 0.0

    def run(self, shown: object, case: Callable[[], object]) -> None:
        """Run a case, and print it where it fails."""
        memory, begin = peak_memory(), time.process_time()
        problem = ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                case()
            self.outcomes["right"] += 1
        except NCAError as error:
            self.outcomes[type(error).__name__] += 1
            problem = "" if str(error) and "\n" not in str(error) else f"message {str(error)!r}"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        seconds, megabytes = time.process_time() - begin, peak_memory() - memory
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, megabytes)
        if not problem and (seconds > SECONDS or megabytes > MEGABYTES):
            problem = f"{seconds:.1f} s, {megabytes:.0f} MB"
        if problem:
            self.failed += 1
            print(f"FAILED {shown!a}: {problem}", flush=True)

    def report(self, what: str) -> None:
        """Print a line."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common())
        print(
            f"{self.outcomes.total():,} {what}: {counts}; {self.failed} failed; at most {self.slowest:.2f} s and "
            f"{self.largest:.0f} MB each", flush=True,
        )  # fmt: skip


def peak_memory() -> float:
    """Return the peak resident memory of this process in MB; of itself alone, where getrusage begins with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def read_entries(count: int, draw: random.Random) -> Tally:
    """Read entries beside a text."""
    tally = Tally()
    for _ in range(count):
        words = [entry(draw), "/a"]
        tally.run(words, functools.partial(read_blend, (words, None)))
    return tally


def build_paths(count: int, draw: random.Random, folder: Path) -> Tally:
    """Build the datasets of whole data paths, and read their first and last sample."""
    import megatron_nca

    megatron_nca.register()
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    from benchmarks.scale import Tokenizer, write_text
    from megatron_nca import NCAConfig, NCASource

    NCASource(NCAConfig(gzip=(0.5, 1.0))).tokens(0, 100)
    logging.disable(logging.WARNING)
    texts = [str(folder / name) for name in "ab"]
    for text in texts:
        write_text(text, TEXT_TOKENS)

    def build(words: list[str]) -> None:
        config = GPTDatasetConfig(
            random_seed=1, sequence_length=128, path_to_cache=str(folder / "cache"), tokenizer=Tokenizer(),
            blend=get_blend_from_list(words), split="98,1,1", reset_position_ids=False, reset_attention_mask=False,
            eod_mask_loss=False, create_attention_mask=False,
        )  # fmt: skip
        train = BlendedMegatronDatasetBuilder(GPTDataset, [300, 10, 10], lambda: True, config).build()[0]
        for position in (0, 299):
            _ = train[position]

    build(["nca:tokens=2560,grid=4", texts[0]])
    tally = Tally()
    for number in range(count):
        words = data_path(draw, texts)
        if any(word.strip().lower().startswith(("nca:", "phase:")) for word in words):
            tally.run(words, functools.partial(build, words))
        if number % 1000 == 999:
            tally.report("data paths so far")
    return tally


def main() -> int:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--paths", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    from torch.distributed import init_process_group

    entries = read_entries(arguments.entries, random.Random(arguments.seed))
    entries.report("entries")
    with tempfile.TemporaryDirectory() as folder:
        # Megatron's blend of several texts asks for its rank.
        init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{folder}/store")
        paths = build_paths(arguments.paths, random.Random(arguments.seed + 1), Path(folder))
    paths.report("data paths")
    return int(entries.failed + paths.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
