"""What is changed in a variant of the experiment is what differs in its run."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from benchmarks.science import variants
first = variants.begin
def begin(variant, *rest):
    begun = first(variant, *rest)
    held = begun[0]
    kept["at the start"] = held.output.std().item(), held.layers[0].down.std().item()
    return begun
def renew(plain, first, *rest):
    kept["before"] = plain.embedding.detach().clone()
    renew_embeddings(plain, first, *rest)
    kept["same"] = None if first is None else bool((plain.embedding == first["embedding"]).all())
    kept["output"] = plain.output.std().item()
    kept["changed"] = bool((kept.pop("before") != plain.embedding).any())
kept, renew_embeddings = {}, variants.renew_embeddings
variants.begin, variants.renew_embeddings = begin, renew
variants.standard_library = lambda read=variants.standard_library: read()[:60]
variant = replace(variants.VARIANTS["small"], nca_tokens=20_000, first_embeddings=True)
kept |= variants.train(variant, 1, 20_000, Path(sys.argv[1]))
print(json.dumps(kept))
"""


@pytest.mark.slow
def test_a_variant_changes_what_it_says(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["at the start"] == pytest.approx([0.02, 0.009], rel=0.05)
    assert found["output"] == pytest.approx(0.02, rel=0.05)
    assert (found["same"], found["changed"]) == (True, True)
    losses = [one["loss"] for one in found["validations"]]
    assert losses[0] > 5.5 > losses[-1], "the embeddings are those of the start, and are learned"
    assert found["nca_loss"] < 6
