"""Data paths that were known before there were phases of text build what they built then: datasets, samples and cache files.

``reference/before_phases.json`` was written by the last commit before ``phase:``, on Megatron-Core 0.16.1:

    PYTHONPATH=CHECKOUT python tests/data/test_first_release.py tests/data/reference/before_phases.json

CHECKOUT is a worktree of commit 75a4e31. The cases are all that its tests of the builder build, and its entries' keys.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

REFERENCE = Path(__file__).parent / "reference/before_phases.json"
CASES = {
    path: ({"blend": path.split()}, sizes)
    for sizes, paths in {
        (100, 10, 10): """
            A
            0.7 A 0.3 B
            nca:
            nca:seed=9
            nca:tokens=2560 A
            nca:tokens=2560 B
            nca:tokens=1M A
            1 nca:tokens=2560 0.7 A 0.3 B
            0.5 nca: 0.3 A 0.2 B
            0.5 nca: 0.25 A 0.25 B
            1 nca:tokens=2560 0.1 nca:domain=code 0.9 A
            nca:tokens=2560 nca:tokens=1280,domain=code A
            nca:tokens=2560,ramp=1280 A
            nca:tokens=4K,ramp=4K,floor=0.1 A
            1 nca:tokens=2560,ramp=2560,floor=0.25 0.7 A 0.3 B
            nca:tokens=2560,ramp=2560 nca:tokens=2560,domain=code,ramp=1280,floor=0.1 A
            1 nca:tokens=1280 0.2 nca: 0.1 nca:domain=math 0.4 A 0.3 B
            nca:tokens=2560,gzip=none,grid=8,colors=8,patch=2,temperature=0.1,identity_bias=0.5,burn_in=2,dt=2 A
            nca:tokens=2560,gzip=none,rules=2,vocab=offset:1000,loss=all A
            nca:tokens=2560,gzip=none,loss=patches,seed=3 A""",
        (80, 10, 10): "A\n0.7 A 0.3 B",
        (100, 40, 10): "0.25 nca: 0.75 A",
        (100_000_000, 10, 10): "nca:tokens=1M nca:domain=code",
    }.items()
    for path in map(str.strip, paths.strip().splitlines())
}
CASES |= {f"{name}, {sizes}": (settings, sizes) for name, settings, sizes in (
    ("all for training", {"blend": ["nca:tokens=2560", "A"], "split": "100,0,0"}, (100, 10, 10)),
    ("NCA, all for training", {"blend": ["nca:"], "split": "100,0,0"}, (100, 10, 10)),
    ("growing to 24", {"blend": ["nca:tokens=2500", "A"], "batch": 24}, (100, 10, 10)),
    ("splits of their own", {"per_split": [["nca:tokens=2560", "A"], ["B"], None]}, (100, 10, 10)),
    ("text of their own", {"per_split": [["A"], ["B"], None]}, (80, 10, 10)),
    ("NCA behind NCA", {"per_split": [["nca:tokens=2560", "A"], ["nca:"], None]}, (100, 10, 10)),
    ("NCA behind text", {"per_split": [["A"], ["nca:"], None]}, (10, 6, 0)),
    ("sets apart", {"per_split": [["nca:tokens=2560", "A"], ["A", "nca:", "B"], None], "multiple_validation_sets": True},
     (100, 10, 10)),
    ("sets apart behind text", {"per_split": [["A"], ["nca:", "B"], None], "multiple_validation_sets": True}, (100, 10, 10)),
    ("packed", {"blend": ["nca:trajectory=128"], "sequence_length": 512}, (100, 10, 10)),
    ("packed with resets", {"blend": ["nca:trajectory=128"], "sequence_length": 256, "eod_mask_loss": True,
                            "reset_attention_mask": True, "reset_position_ids": True}, (100, 10, 10)),
    ("no extra token", {"blend": ["nca:"], "add_extra_token_to_sequence": False}, (100, 10, 10)),
    ("packed, no extra token", {"blend": ["nca:trajectory=100"], "sequence_length": 256,
                                "add_extra_token_to_sequence": False}, (100, 10, 10)),
    ("no mask", {"blend": ["nca:"], "create_attention_mask": False}, (100, 10, 10)),
    ("another seed", {"blend": ["nca:tokens=2560", "A"], "random_seed": 77}, (100, 10, 10)),
    ("another seed, an entry's own", {"blend": ["nca:seed=9"], "random_seed": 77}, (100, 10, 10)),
)}  # fmt: skip


def build(settings, sizes):
    """Build a case in the working directory, whose texts are called A and B: their names are part of a cache file's."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list
    from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator, unset_num_microbatches_calculator

    import megatron_nca
    from tests.conftest import Tokenizer

    megatron_nca.register()
    options = {
        "random_seed": 1234, "sequence_length": 128, "path_to_cache": "cache", "tokenizer": Tokenizer(), "eod_mask_loss": False,
        "reset_position_ids": False, "reset_attention_mask": False, **settings,
    }  # fmt: skip
    batch, blend, per_split = (options.pop(name, None) for name in ("batch", "blend", "per_split"))
    if per_split is None:
        options = {"split": "90,5,5", **options, "blend": get_blend_from_list(blend)}
    else:
        options["blend_per_split"] = [get_blend_from_list(part) for part in per_split]
    unset_num_microbatches_calculator()
    if batch is not None:
        init_num_microbatches_calculator(0, None, batch, 2, 4)
    try:
        return BlendedMegatronDatasetBuilder(GPTDataset, list(sizes), lambda: True, GPTDatasetConfig(**options)).build()
    finally:
        unset_num_microbatches_calculator()


def told(dataset):
    """Tell a dataset: its kind, its length and a digest of its samples, of all or of some."""
    if dataset is None:
        return None
    if isinstance(dataset, list):
        return [told(one) for one in dataset]
    digest = hashlib.sha256()
    for place in range(len(dataset)) if len(dataset) < 1000 else (0, 7_811, 7_812, len(dataset) - 1):
        for name, value in sorted(dataset[place].items()):
            held = np.asarray(value)
            digest.update(f"{place} {name} {type(value).__name__} {held.dtype} {held.shape}".encode())
            digest.update(held.tobytes())
    return [type(dataset).__name__, len(dataset), digest.hexdigest()]


def cache_digest():
    """Return a digest of the cache files' names and bytes, and how many there are."""
    files = sorted(path for path in Path("cache").rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path} {path.stat().st_size}\n".encode() + path.read_bytes())
    return [len(files), digest.hexdigest()]


@pytest.fixture
def here(text, other_text, process_group, tmp_path, monkeypatch):
    """A working directory with the texts A and B."""
    for name, prefix in (("A", text), ("B", other_text)):
        for suffix in (".bin", ".idx"):
            (tmp_path / name).with_suffix(suffix).write_bytes(Path(f"{prefix}{suffix}").read_bytes())
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_data_path_of_old_builds_what_it_built(case, here):
    settings, sizes = CASES[case]
    datasets, (files, digest) = json.loads(REFERENCE.read_text())[case]
    assert told(build(settings, sizes)) == datasets
    assert cache_digest()[0] == files
    from megatron.core.package_info import __version__

    # Other versions of Megatron-Core give their files other names.
    if __version__.startswith("0.16."):
        assert cache_digest()[1] == digest


def main(output):
    """Write the reference."""
    import os
    import tempfile

    import torch

    import megatron_nca
    from tests.conftest import write_text

    print(megatron_nca.__file__)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{folder}/store")
        for number, (case, (settings, sizes)) in enumerate(CASES.items()):
            place = Path(folder, str(number))
            place.mkdir()
            os.chdir(place)
            write_text(Path("A"), 300, seed=0)
            write_text(Path("B"), 200, seed=1)
            found[case] = [told(build(settings, sizes)), cache_digest()]
        torch.distributed.destroy_process_group()
    Path(output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
