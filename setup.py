"""What pyproject.toml cannot say: the description and the addresses, which depend on where a release is built.

README's links and pictures are paths within the repository, and lead nowhere on a package index. Whoever builds a release
tells the repository's address in MEGATRON_NCA_REPOSITORY; they are then written out in full, and the address becomes the
project's. Without it links are plain words and pictures are left out: no address is made up.
"""

import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[((?:[^\]]|\n)*)\]\((?!https?://|#)([^)]+)\)")


def description(readme: str, repository: str) -> str:
    """Return README with every relative link and picture written out in full, or without them where no address is told."""

    def absolute(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        if not repository:
            return "" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{path})"

    return LINK.sub(absolute, readme)


def addresses(repository: str) -> dict[str, str]:
    """Return the project's addresses by their names."""
    if not repository:
        return {}
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/HEAD/docs/index.md",
        "Changes": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


if __name__ == "__main__":
    told = os.environ.get("MEGATRON_NCA_REPOSITORY", "").rstrip("/")
    setup(
        long_description=description((ROOT / "README.md").read_text(encoding="utf-8"), told),
        long_description_content_type="text/markdown",
        project_urls=addresses(told),
    )
