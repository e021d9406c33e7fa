"""What several test folders share: a tokenizer, a text and Megatron's builder over them."""

import os
import re

import numpy as np
import pytest
from hypothesis import settings

from tests.allowed_skips import ALLOWED

# One thread a process: tests start several, and the machine may have two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a test starts ends with it, also where the test is killed.
os.environ.setdefault("MEGATRON_NCA_END_WITH_PARENT", "1")

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


LEFT_OUT: list[str] = []
"""Why tests were skipped in this session."""


def _keep_reason(report):
    if report.skipped and isinstance(report.longrepr, tuple):
        LEFT_OUT.append(str(report.longrepr[2]))


def pytest_runtest_logreport(report):
    _keep_reason(report)


def pytest_collectreport(report):
    _keep_reason(report)


def pytest_sessionfinish(session):
    """In CI, fail a run that leaves a test out for a reason that nobody has allowed."""
    unknown = sorted({reason for reason in LEFT_OUT if not any(re.search(allowed, reason) for allowed in ALLOWED)})
    if unknown and os.environ.get("CI") == "true":
        print("\nskipped for reasons that tests/allowed_skips.py does not have:", *unknown, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Tokenizer:
    """The interface that Megatron's datasets use."""

    def __init__(self, vocab_size=12_000, eod=5, pad=0, bos=1):
        self.vocab_size, self.eod, self.pad, self.bos = vocab_size, eod, pad, bos
        self.unique_identifiers = {"class": "Tokenizer", "vocab_size": vocab_size}


@pytest.fixture
def tokenizer():
    return Tokenizer()


def write_text(prefix, documents, seed=0, vocab_size=12_000):
    """Write a tokenised text of random documents as Megatron's .bin and .idx."""
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    generator = np.random.default_rng(seed)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.int32)
    for _ in range(documents):
        length = int(generator.integers(50, 500))
        builder.add_item(torch.from_numpy(generator.integers(10, vocab_size, length)))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "a", 300)


@pytest.fixture(scope="session")
def other_text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "b", 200, seed=1)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """A world of one: Megatron's BlendedDataset asks for its rank."""
    import torch

    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{store}")
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def build(tmp_path, tokenizer, process_group):
    """Build (train, valid, test) as Megatron-LM does, with the plugin registered."""
    import megatron_nca

    megatron_nca.register()

    def build_datasets(blend=None, sizes=(100, 10, 10), per_split=None, run=None, **settings):
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.utils import get_blend_from_list

        from megatron_nca.data import hook

        options = {
            "random_seed": 1234,
            "sequence_length": 128,
            "path_to_cache": str(tmp_path / "cache"),
            "tokenizer": tokenizer,
            "reset_position_ids": False,
            "reset_attention_mask": False,
            "eod_mask_loss": False,
            **settings,
        }
        built_on_rank = options.pop("is_built_on_rank", lambda: True)
        cls = options.pop("cls", GPTDataset)
        if per_split is None:
            options.setdefault("split", "90,5,5")
            options["blend"] = get_blend_from_list(blend)
        else:
            options["blend_per_split"] = [get_blend_from_list(part) for part in per_split]
        builder = BlendedMegatronDatasetBuilder(cls, list(sizes), built_on_rank, GPTDatasetConfig(**options))
        if run is None:
            return builder.build()
        return hook.with_curriculum(run)(BlendedMegatronDatasetBuilder.build.__wrapped__)(builder)

    return build_datasets


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Prefix of a text of bytes that a tiny model learns in a few steps."""
    from megatron_nca.rehearsal.corpus import write_corpus

    documents = [bytes(97 + (7 * start + place * place) % 13 for place in range(400)) for start in range(200)]
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text", documents)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM cluster of two nodes on this machine."""
    from tests.slurm.cluster import Cluster, why_not

    if why_not() is not None:
        pytest.skip(f"a SLURM cluster {why_not()}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
