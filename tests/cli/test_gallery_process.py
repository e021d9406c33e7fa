"""The process in the page of ``preview --html``: the same integers, the same verdicts on an entry, what is kept of a choice."""

import json
import re
import shlex
from dataclasses import asdict

import pytest

from megatron_nca import NCAConfig, NCASource
from megatron_nca.data.band import check_band
from megatron_nca.data.entry import parse_entry
from megatron_nca.errors import NCAError
from tests.cli.test_gallery import browser, complete, gallery, offered, page, ratios, slide  # noqa: F401

PROCESSES = [
    {},
    {"colors": 2, "grid": 6},
    {"grid": 9, "patch": 3, "colors": 4, "dt": 3},
    {"temperature": 1.0, "colors": 5},
    {"temperature": 1e-5, "identity_bias": 2.5},
    {"temperature": 0.0, "burn_in": 0},
    {"identity_bias": -0.1, "burn_in": 33},
    {"grid": 16, "colors": 64, "patch": 1},
    {"grid": 64, "colors": 6, "patch": 1, "burn_in": 2},
]
AUTOMATON = """(asked) => {
    const tables = Object.fromEntries(Object.entries(data.tables).map(([name, packed]) => [name, unpackedTable(packed)]));
    const stream = {version: data.stream.version, rules: "None", seed: asked.seed, split: asked.split};
    return new Automaton(asked.config, stream, tables);
}"""


@pytest.mark.parametrize("settings", PROCESSES, ids=str)
def test_key_ratios_cells_and_tokens_are_python_s(page, settings):  # noqa: F811
    config = NCAConfig(**settings)
    source = NCASource(config, 77, "valid")
    frames, rules = 4, list(range(4 if config.grid > 16 else 24))
    asked = {"config": asdict(config), "seed": "77", "split": "valid", "rules": rules, "frames": frames}
    told = page.evaluate(
        f"""(asked) => {{
            const automaton = ({AUTOMATON})(asked), cells = automaton.grids(5, asked.frames);
            return {{ uri: canonical(automaton.config), key: automaton.key,
                ratios: asked.rules.map((rule) => ratio(automaton, rule)),
                cells: Array.from(cells), tokens: patchTokens(automaton.config, cells) }};
        }}""",
        asked,
    )
    grids = source.grids(5, frames)
    assert told["uri"] == config.to_uri()
    assert tuple(told["key"]) == source.key
    assert told["ratios"] == source.scores(rules).tolist()
    assert told["cells"] == grids.ravel().tolist()
    tokens = source.tokens(5, frames * config.frame_length).reshape(frames, -1)[:, 1:-1]
    assert told["tokens"] == tokens.ravel().tolist()


def test_a_large_trajectory_number_is_python_s(page):  # noqa: F811
    number = 2**33 + 5
    asked = {"config": asdict(NCAConfig(colors=3)), "seed": "1234", "split": "train"}
    cells = page.evaluate(f"(asked) => Array.from(({AUTOMATON})(asked).grids({number}, 3))", asked)
    assert cells == NCASource(NCAConfig(colors=3)).grids(number, 3).ravel().tolist()


ENTRIES = [
    "nca:gzip=0.3-0.4", "nca:gzip=0.66-0.7", "nca:gzip=0.02-0.03", "nca:gzip=0.9-1.0", "nca:grid=12,patch=5",
    "nca:grid=64,gzip=0.0-1.0", "nca:burn_in=60000,gzip=0.0-1.0", "nca:burn_in=100,gzip=0.0-0.1",
    "nca:colors=64,patch=6,gzip=0.0-1.0", "nca:grid=4,colors=4,burn_in=200,gzip=0.3-0.8", "nca:temperature=1,gzip=0.1-0.3",
    "nca:temperature=1,gzip=0.6-0.8", "nca:dt=5000", "nca:colors=2,gzip=0.1-0.11", "nca:grid=46,gzip=0.0-1.0",
    "nca:grid=44,gzip=0.0-1.0",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", ENTRIES)
def test_an_entry_is_offered_exactly_where_a_launch_would_take_it(page, text):  # noqa: F811
    from megatron_nca.automaton.config import parse_settings, split_pairs

    settings = parse_settings(split_pairs(text))
    asked = {
        "config": {**asdict(NCAConfig()), **settings, "gzip": settings.get("gzip", (0.5, 1.0))},
        "seed": "1234",
        "split": "train",
    }
    taken = page.evaluate(
        f"(asked) => refusal(asked.config, data.limits) ? false : bandHolds(({AUTOMATON})(asked), data.limits).good", asked
    )
    try:
        check_band(parse_entry(text))
        assert taken
    except NCAError:
        assert not taken


def test_a_band_that_is_too_rare_is_not_offered_and_the_page_says_why(page):  # noqa: F811
    slide(page, "to", 0.99)
    slide(page, "from", 0.95)
    assert offered(page) == ""
    assert not page.get_by_role("button", name="Copy the entry").is_visible()
    assert re.fullmatch(
        r"Not offered: 0 of [\d,]+ random rules lie in this band; a launch asks for one in a hundred\.",
        page.locator("#verdict").inner_text(),
    )


def turn(page, name, value):  # noqa: F811
    knob = page.get_by_label(name, exact=True)
    knob.fill(str(value))
    knob.dispatch_event("change")


def test_knobs_make_the_rules_anew_and_stand_in_the_entry(page):  # noqa: F811
    page.get_by_role("button", name="all", exact=True).click()
    for name, value in (("grid", 8), ("patch", 1), ("temperature", 0.5), ("identity bias", 1), ("burn-in", 3)):
        turn(page, name, value)
    slide(page, "colours", 3)
    complete(page)
    entry = parse_entry(offered(page))
    wanted = NCAConfig(grid=8, patch=1, temperature=0.5, identity_bias=1.0, burn_in=3, colors=3)
    assert entry.config == NCAConfig(**{**asdict(wanted), "gzip": (0.0, 1.0)})
    inside = sorted(ratio for ratio in NCASource(wanted).scores(range(120)).tolist() if ratio < 1)
    assert len(inside) > 100
    assert ratios(page) == [float(f"{ratio:.3f}") for ratio in inside]


def test_a_process_that_no_launch_takes_is_refused_in_words(page):  # noqa: F811
    turn(page, "patch", 5)
    assert page.get_by_role("alert").inner_text() == "No launch takes this process: a patch of 5 does not divide a grid of 12."
    assert page.locator("#entry").inner_text() == ""
    page.get_by_role("button", name="as it was made").click()
    complete(page)
    assert page.get_by_role("alert").count() == 0 or page.get_by_role("alert").inner_text() == ""
    assert offered(page) == "nca:gzip=0.30-0.40"


def test_a_rule_opens_large_with_its_tokens_and_a_command_that_draws_it(page, succeed):  # noqa: F811
    page.get_by_role("button", name="Pause").click()
    slide(page, "step", 2)
    page.locator("#rules .tile").first.click()
    number = int(re.match(r"Rule (\d+),", page.locator("#rule-title").inner_text())[1])
    frame = NCASource(NCAConfig()).tokens(number, 3 * 38)[76:]
    assert page.locator("#tokens").inner_text().split() == [str(token) for token in frame]
    program, command, *words = shlex.split(page.locator("#command").inner_text())
    assert (program, command) == ("megatron-nca", "preview")
    [drawn] = succeed(command, *words, "--text")["trajectories"]
    assert drawn["name"] == f"rule {number}"
    assert f"{drawn['gzip_ratio']:.3f}" == page.locator("#rule-title").inner_text().split()[-1]
    page.get_by_role("button", name="close").click()
    assert not page.locator("#rule").is_visible()


def test_the_address_keeps_the_choice(page, browser):  # noqa: F811
    turn(page, "burn-in", 4)
    complete(page)
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="Pause").click()
    slide(page, "step", 5)
    page.locator("#rules .tile").nth(7).click()
    title = page.locator("#rule-title").inner_text()
    other = browser.new_page()
    other.goto(page.url)
    complete(other)
    assert other.locator("#rule-title").inner_text() == title
    assert other.locator("#rule").is_visible()
    assert other.locator("#tokens").inner_text() == page.locator("#tokens").inner_text()
    assert other.get_by_label("burn-in").input_value() == "4"
    assert other.get_by_label("to", exact=True).input_value() == "1"
    other.close()


def test_copying_gives_the_entry(page):  # noqa: F811
    page.evaluate("document.addEventListener('copy', () => { window.taken = getSelection().toString(); })")
    page.get_by_role("button", name="Copy the entry").click()
    assert page.locator("#copy-entry").inner_text() == "copied"
    assert page.evaluate("window.taken") == "nca:gzip=0.30-0.40"


@pytest.mark.slow
def test_five_hundred_rules_do_not_stall_the_page(succeed, tmp_path, browser):  # noqa: F811
    path = tmp_path / "page.html"
    succeed("preview", "nca:gzip=none", "--html", path)
    opened = browser.new_page()
    opened.goto(path.as_uri())
    longest = """() => new Promise((done) => {
        let last = performance.now(), longest = 0;
        const look = (now) => {
            longest = Math.max(longest, now - last);
            last = now;
            if (shown.rules.length === data.rules) done(longest); else requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    })"""
    # A shared machine; rules themselves take seconds.
    assert opened.evaluate(longest) < 1000
    assert opened.locator("#rules canvas").count() == 500
    opened.close()


def test_the_data_of_the_page_cannot_end_its_script(succeed, tmp_path):
    path = tmp_path / "page.html"
    succeed("preview", "nca:gzip=none", "--html", path, "--rules", "1")
    told = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"))[1]
    assert "<" not in told
    assert json.loads(told)["rules"] == 1
