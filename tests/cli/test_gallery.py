"""The page of ``preview --html`` in a real browser."""

import re
import shutil

import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.cli.pictures.looks import cell_palette

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if BROWSER is None:
        pytest.skip("needs Chromium: no chromium, chromium-browser or google-chrome on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    from megatron_nca.cli.main import main

    path = tmp_path_factory.mktemp("gallery") / "gallery.html"
    assert main(["preview", "nca:domain=code", "--html", str(path), "--rules", "120", "--frames", "12"]) == 0
    return path


@pytest.fixture
def page(browser, gallery):
    """Open the page; whatever it says on the console or asks of a network fails the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(gallery.as_uri())
    complete(page)
    yield page
    assert said == []
    # Workers are started from the page itself.
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [gallery.as_uri()]
    page.close()


def complete(page):
    """Wait until every rule is there and the band has been looked at."""
    page.wait_for_function("() => shown.rules.length === data.rules && !shown.bandWorker")
    offered(page)


def offered(page):
    """The entry that the page offers, once it has looked at the band."""
    page.wait_for_function("() => !part('verdict').textContent.includes('Looking')")
    return page.locator("#entry").inner_text()


def ratios(page):
    return [float(text) for text in page.locator("#rules figcaption .number").all_inner_texts()]


def pixels(page, tile=0):
    """The colours of a tile's cells, by row."""
    read = "(canvas) => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    flat = page.locator("#rules canvas").nth(tile).evaluate(read)
    return [tuple(flat[at : at + 3]) for at in range(0, len(flat), 4)]


def slide(page, name, value):
    page.get_by_label(name, exact=True).fill(str(value))


def test_it_plays_and_pauses(page):
    step = page.locator("#frame-value")
    first = step.inner_text()
    page.wait_for_function("(first) => document.getElementById('frame-value').textContent !== first", arg=first)
    page.get_by_role("button", name="Pause").click()
    still = step.inner_text()
    page.wait_for_timeout(400)
    assert step.inner_text() == still
    assert page.get_by_role("button", name="Play").is_visible()


def test_every_cell_is_the_processs(page):
    page.get_by_role("button", name="Pause").click()
    slide(page, "step", 7)
    number = int(re.search(r"Rule (\d+)", page.locator("#rules canvas").first.get_attribute("aria-label"))[1])
    grid = NCASource(NCAConfig()).grids(number, 8)[7]
    assert pixels(page) == [tuple(map(int, cell_palette(10)[cell])) for cell in grid.ravel()]


def test_the_band_of_the_entry_is_shown_first(page):
    found = ratios(page)
    assert found == sorted(found)
    assert all(0.3 < ratio < 0.4 for ratio in found)
    assert offered(page) == "nca:gzip=0.30-0.40"


def test_sliders_filter_by_band(page):
    slide(page, "to", 0.65)
    slide(page, "from", 0.5)
    assert ratios(page)
    assert all(0.5 < ratio < 0.65 for ratio in ratios(page))
    assert offered(page) == "nca:gzip=0.50-0.65"
    slide(page, "from", 0.9)
    assert page.locator("#high-value").inner_text() == "0.91"
    assert page.locator("#count").inner_text().startswith("0 of ")


def test_the_slider_of_colours_changes_them(page):
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="Pause").click()
    slide(page, "colours", 4)
    assert page.locator("#colors-value").inner_text() == "4"
    complete(page)
    assert "colors=4" in offered(page)
    allowed = {tuple(map(int, color)) for color in cell_palette(4)}
    assert {color for tile in range(5) for color in pixels(page, tile)} <= allowed


def test_the_entry_shown_is_one_that_a_launch_takes(page):
    from megatron_nca.data.entry import parse_entry

    page.get_by_role("button", name="all", exact=True).click()
    assert parse_entry(offered(page)).config.gzip == (0.0, 1.0)


def test_the_keyboard_alone_plays_steps_and_filters(page):
    page.keyboard.press("Space")
    before = int(page.locator("#frame-value").inner_text())
    page.keyboard.press("ArrowRight")
    assert int(page.locator("#frame-value").inner_text()) == (before - 10 + 1) % 12 + 10
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "low"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#low-value").inner_text() == "0.29"


def test_every_control_and_picture_has_a_name(page):
    unnamed = """() => [...document.querySelectorAll('input, button, canvas, svg')].filter((element) =>
        !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0
    assert re.fullmatch(
        r"Rule \d+, 10 colours, gzip ratio 0\.3\d\d", page.locator("#rules canvas").first.get_attribute("aria-label")
    )
    assert re.search(r"\d+ of \d+ rules shown; about \d+\.\d %", page.locator("#count").inner_text())


def test_it_stands_still_for_who_prefers_that(browser, gallery):
    page = browser.new_page(reduced_motion="reduce")
    page.goto(gallery.as_uri())
    assert page.get_by_role("button", name="Play").is_visible()
    page.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_window(browser, gallery, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(gallery.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_page_refers_to_nothing_outside(gallery):
    text = gallery.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|src=", text)


@pytest.mark.parametrize("entry", ["nca:colors=64,patch=1,gzip=none", "nca:grid=6,patch=3,dt=3,gzip=none"])
def test_other_processes_have_a_page_too(succeed, tmp_path, browser, entry):
    path = tmp_path / "a.html"
    assert succeed("preview", entry, "--html", path, "--rules", 2, "--frames", 4)["written"] == [str(path)]
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    complete(page)
    # Small grids have ratios above 1, where gzip's header outweighs what it saves; the sliders end at 1.
    assert 1 <= page.locator("#rules canvas").count() <= 2
    assert errors == []
    page.close()
