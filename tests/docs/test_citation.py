"""CITATION.cff and the page of the docs name this version and the paper."""

from pathlib import Path

import yaml

import megatron_nca

ROOT = Path(__file__).parents[2]


def test_the_citation_is_of_this_version_and_names_the_paper():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert told["version"] == megatron_nca.__version__
    assert told["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(told)
    assert told["references"][0]["url"] == "https://arxiv.org/abs/2603.10055"
    page = (ROOT / "docs/citation.md").read_text(encoding="utf-8")
    assert f"Version {told['version']}." in page
    assert told["title"] in page
    assert told["references"][0]["title"] in page
