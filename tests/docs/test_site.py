"""The documentation as a site: built without a warning, read without a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(package, reason=f"{package} is not installed; it comes with megatron-nca[docs]")

# The site is built once for all of them: ten seconds.
pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DOCS = Path(__file__).parents[2] / "docs"
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"|<link[^>]*rel="(?:stylesheet|preload)"[^>]*href="([^"]+)\""""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", out / "trees", DOCS, out / "html"]
    built = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    return out / "html"


def test_every_page_is_built_and_is_in_the_table_of_contents(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.stem for page in DOCS.glob("*.md") if page.stem != "index"]
    assert [page for page in pages if not (site / f"{page}.html").is_file() or f'href="{page}.html"' not in index] == []


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.glob("*.html"):
        loaded = ["".join(found) for found in LOADED.findall(page.read_text(encoding="utf-8"))]
        assert loaded, page.name
        assert [address for address in loaded if "//" in address] == [], page.name


def test_formulas_are_mathml(site):
    assert (site / "curriculum.html").read_text(encoding="utf-8").count("<math") > 20


def test_the_public_names_have_their_docstrings(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in ("megatron_nca.register", "megatron_nca.NCAConfig", "megatron_nca.NCASource.tokens"):
        assert f'id="{name}"' in page
    assert "Teach Megatron-Core" in page


def test_commands_are_highlighted_and_can_be_copied(site):
    page = (site / "quick-start.html").read_text(encoding="utf-8")
    assert page.count('class="highlight-bash') + page.count('class="highlight-default') > 5
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if BROWSER is None:
        pytest.skip("needs Chromium: no chromium, chromium-browser or google-chrome on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto((site / "quick-start.html").as_uri())
        blocks = opened.locator("article div.highlight")
        button = blocks.first.get_by_role("button", name="Copy this block")
        assert opened.get_by_role("button", name="Copy this block").count() == blocks.count()
        opened.evaluate("document.addEventListener('copy', () => { window.taken = document.activeElement.value; })")
        button.click()
        assert button.text_content() == "copied"
        assert opened.evaluate("window.taken") == blocks.first.locator("pre").text_content()
        browser.close()
