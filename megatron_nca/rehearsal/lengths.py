"""The data path, the length and the batches of a launch, scaled down to a few steps a phase; their shape stays.

A phase of tokens t in a run of tokens T becomes round(8 t / T) steps, at least `LEAST`; a ramp likewise, at least two. Batches
keep their ratio to the run's, warm-up and decay their share of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_nca.automaton.config import SCHEME, split_pairs
from megatron_nca.data.entry import AUTO, MIN_FRAMES, is_nca, parse_count, parse_entry
from megatron_nca.data.phase_word import SCHEME as PHASE_SCHEME
from megatron_nca.data.phase_word import is_number, is_ours
from megatron_nca.rehearsal.launching import LaunchError
from megatron_nca.rehearsal.scaling import Case

SEQUENCE, BATCH = 64, 8
STEPS, LEAST, LEAST_OF_RAMP = 8, 6, 2
SPLITS = ("train", "valid", "test")
KEPT = (
    *("--lr", "--min-lr", "--lr-decay-style", "--lr-wsd-decay-style", "--lr-warmup-fraction", "--lr-warmup-init"),
    *("--decoupled-lr", "--decoupled-min-lr", "--seed", "--split", "--num-workers"),
)
SHARES = ("decay", "warmup", "wsd-decay")


@dataclass(frozen=True)
class Length:
    """How long the launch's run is.

    Args:
        samples: Samples of the whole run.
        sequence: Tokens of a sample.
        batch: Samples of a step.
    """

    samples: int
    sequence: int
    batch: int


def data_paths(case: Case) -> dict[str, list[str]]:
    """Return the words of each data path of a launch, by the flag that would give them.

    Raises:
        LaunchError: A file that holds them cannot be read.
    """
    found = {}
    for flag in ("--data-path", *(f"--{split}-data-path" for split in SPLITS)):
        if flag in case.arguments:
            given = case.arguments[flag]
            found[flag] = list(given) if isinstance(given, list) else [str(given)]
    if name := case.arguments.get("--data-args-path"):
        found["--data-path"] = _read(str(name)).split()
    if name := case.arguments.get("--per-split-data-args-path"):
        try:
            parts = json.loads(_read(str(name))).items()
        except (AttributeError, ValueError, RecursionError) as error:
            raise LaunchError(f"--per-split-data-args-path {name}: holds no data of each split ({error})") from None
        for split, part in parts:
            words = part.split() if isinstance(part, str) else part if isinstance(part, list) else []
            found |= {f"--{split}-data-path": list(map(str, words))} if words else {}
    return found


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LaunchError(f"{name}: cannot be read ({error})") from None


class Scaling:
    """The scaled data path and length of a launch.

    Args:
        case: The launch's flags.
        length: Length of its run.
        data_parallel: Replicas of the rehearsal.
        text: Gives the prefix to read in the place of a text's.
    """

    def __init__(self, case: Case, length: Length, data_parallel: int, text: Callable[[str], str]) -> None:
        self._case, self._length, self._data_parallel, self._text = case, length, data_parallel, text
        self.samples = 0
        self._sequence = sequence_of(word for words in data_paths(case).values() for word in words if is_nca(word))

    def flags(self) -> list[str]:
        """Flags of data, length, batches and learning rate."""
        paths = data_paths(self._case)
        scaled: list[str] = []
        for number, (flag, words) in enumerate(paths.items()):
            scaled += [flag, *self._path(words, first=number == 0)]
        return [*scaled, *self._sizes(), *self._rates()]

    def _path(self, words: Sequence[str], first: bool) -> list[str]:
        """Scale the words of a data path; the first one's phases tell the length of the run."""
        total = self._length.samples * self._length.sequence
        made, samples, given = [], 0, 0
        for word in words:
            if not is_ours(word):
                made.append(word if is_number(word) else self._text(word))
                continue
            pairs = split_pairs(word.strip(), SCHEME if is_nca(word) else PHASE_SCHEME)
            tokens, count = self._phase(pairs, total)
            samples, given = samples + count, given + tokens
            made.append(self._word(word, pairs))
        if first:
            rest = max(round(STEPS * max(total - given, 0) / total), LEAST)
            self.samples = _up(samples + rest * BATCH, BATCH)
        return made

    def _phase(self, pairs: dict[str, str], total: int) -> tuple[int, int]:
        """Scale a phase's keys in place; returns its real tokens and its scaled samples."""
        batch, given, samples = BATCH, 0, 0
        if "batch" in pairs:
            batch = self._batch(parse_count("batch", pairs["batch"]))
            pairs["batch"] = str(batch)
        for key, least in (("tokens", LEAST), ("ramp", LEAST_OF_RAMP)):
            tokens = parse_count(key, pairs[key]) if key in pairs else 0
            if tokens:
                steps = max(round(STEPS * tokens / total), least)
                pairs[key] = str(steps * batch * self._sequence)
                given, samples = given + tokens, samples + steps * batch
        return given, samples

    def _word(self, word: str, pairs: Mapping[str, str]) -> str:
        if pairs.get("domain", "").startswith(AUTO):
            pairs = {**pairs, "domain": AUTO + self._text(pairs["domain"].removeprefix(AUTO))}
        scheme = SCHEME if is_nca(word) else PHASE_SCHEME
        return scheme + ",".join(f"{key}={value}" for key, value in pairs.items())

    def _batch(self, real: int) -> int:
        return max(round(BATCH * real / self._length.batch / self._data_parallel), 1) * self._data_parallel

    def _share(self, samples: float, least: int = BATCH) -> int:
        return max(round(self.samples * samples / self._length.samples), least)

    def _sizes(self) -> list[str]:
        sizes = {"--seq-length": self._sequence, "--max-position-embeddings": self._sequence, "--global-batch-size": BATCH}
        if self._case.has("--train-samples"):
            sizes["--train-samples"] = self.samples
        else:
            sizes["--train-iters"] = self.samples // BATCH
        words = [str(word) for pair in sizes.items() for word in pair]
        ramp = self._case.arguments.get("--rampup-batch-size")
        if isinstance(ramp, list) and len(ramp) == len(SPLITS):
            # In two steps: half a batch, a whole one.
            words += ["--rampup-batch-size", str(BATCH // 2), str(BATCH // 2), str(self._share(int(ramp[-1])))]
        return words

    def _rates(self) -> list[str]:
        words: list[str] = []
        for flag in KEPT:
            if self._case.has(flag):
                words += [flag, str(self._case.arguments[flag])]
        for name in SHARES:
            iterations = self._case.arguments.get(f"--lr-{name}-iters")
            samples = self._case.arguments.get(f"--lr-{name}-samples")
            if iterations is not None:
                words += [f"--lr-{name}-iters", str(self._share(int(iterations) * self._length.batch) // BATCH)]
            elif samples is not None:
                words += [f"--lr-{name}-samples", str(self._share(int(samples)))]
        if (warm_up := self._case.arguments.get("--nca-lr-warmup-samples")) is not None:
            words += ["--nca-lr-warmup-samples", str(self._share(int(warm_up)))]
        return words


def sequence_of(entries: Iterable[str]) -> int:
    """Return the shortest sequence, a multiple of 64 tokens, that holds the frames that each entry needs."""
    longest = max((MIN_FRAMES * parse_entry(entry).config.frame_length for entry in entries), default=SEQUENCE)
    return _up(longest, SEQUENCE)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def has_files(prefix: str) -> bool:
    """Return whether both files of an indexed dataset are there."""
    return all(Path(prefix + end).is_file() for end in (".bin", ".idx"))


def describe(arguments: Mapping[str, Any]) -> str:
    """Return the number format of a launch's flags."""
    parts = [name for flag, name in (("--bf16", "bf16"), ("--fp16", "fp16")) if arguments.get(flag)]
    if kind := arguments.get("--fp8-format"):
        parts.append(f"FP8 {kind}, {arguments.get('--fp8-recipe', 'delayed')}")
    if kind := arguments.get("--fp4-format"):
        parts.append(f"FP4 {kind}")
    return " with ".join(parts) or "fp32"
