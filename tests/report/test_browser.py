"""The report in a real browser, from disk: it loads, pictures show, filters work, and nothing else is run or asked for.

Two runs over 26 questions made by hand. The first is right on every even one, the second on the first 13.
"""

from __future__ import annotations

import io
import json
import re

import pytest
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.shards.writer import ShardWriter

NUM = 26
NAMES = ("Merlin", "Café <b>racer</b>", "Hobby")
FIRST, SECOND = 'a "first" <i>run</i>', "second"
ATTACK = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
THINK = "<think>Conclusion: (100,100),(400,400) is the Merlin.</think><answer>{}</answer>"
ASTRAY = "<think>Conclusion: (600,600),(900,900) is the Merlin.</think><answer>{}</answer>"
RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"

SHOWN = "[...document.querySelectorAll('.card')].filter(c => c.checkVisibility()).length"


def category(n: int) -> str:
    return "bird" if n % 2 else "dog"


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_line, make_sample, encoded, write_run):
    """Written by the command, over shards with a photograph, a picture that two cases share, and drawings."""
    folder = tmp_path_factory.mktemp("report")
    photograph = encoded((200, 120, 40), (1600, 1200), "JPEG")
    shared = encoded((10, 200, 90))
    with ShardWriter(folder / "set") as writer:
        for n in range(NUM):
            image = photograph if n == 0 else shared if n in (1, 2) else encoded((n, 9 * n, 255 - n))
            size = (1600, 1200) if n == 0 else (100, 100)
            split, knowledge = ("seen", "known") if n < 10 else ("unseen", "unknown")
            sample = make_sample(f"k{n}", image, size, category=category(n), split=split, knowledge=knowledge)
            writer.write(sample)
    for run, is_right in ((FIRST, lambda n: n % 2 == 0), (SECOND, lambda n: n < 13)):
        lines = []
        for n in range(NUM):
            box = RIGHT if is_right(n) else WRONG
            answer = THINK.format(box) if n in (3, 4) else ASTRAY.format(box) if n in (5, 6) else f"{box} {ATTACK}"
            split, knowledge = ("seen", "known") if n < 10 else ("unseen", "unknown")
            told = {"category": category(n), "split": split, "knowledge": knowledge, "entity": NAMES[n % 3]}
            if n in (3, 4, 5, 6):
                told["entity"] = "Merlin"
            lines.append(make_line(f"k{n}", answer=answer, **told))
        write_run(folder / run.replace("/", ""), lines)
    runs = [f"{run}={folder / run.replace('/', '')}" for run in (FIRST, SECOND)]
    assert main(["report", "--runs", *runs, "--set", str(folder / "set"), "--out", str(folder / "out")]) == 0
    return folder / "out/index.html"


@pytest.fixture
def shown(browser, page):
    """Opens the page, with a view behind the ``#`` and a window."""

    def show(view="", **window):
        browser.open(f"{page.as_uri()}{view}", **window)
        return browser

    return show


def test_it_loads_from_disk_alone_and_runs_nothing_of_what_a_model_said(shown, page):
    browser = shown()
    assert browser.errors == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.run("document.querySelectorAll('script').length") == 1
    # What is said is there to be read.
    assert ATTACK in browser.run("document.querySelector('.said').textContent")
    assert browser.run("[...document.querySelectorAll('.entity')].some(e => e.textContent.includes('<b>racer</b>'))")
    assert FIRST in browser.run("document.querySelector('[name=run]').textContent")
    # Even what would find its way into the page would not run: the policy knows one script.
    browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 2'}))")
    assert browser.run("typeof window.hacked") == "undefined"


def test_every_picture_shows_once_and_large_ones_are_smaller(shown, page):
    browser = shown()
    sizes = browser.run("[...document.querySelectorAll('img')].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == NUM
    assert sizes[0] == [True, 640, 480]
    assert sizes[1:] == [[True, 100, 100]] * (NUM - 1)
    embedded = re.findall(r'src="data:image/(\w+);base64,', page.read_text("utf-8"))
    assert embedded == ["jpeg", *["png"] * (NUM - 2)]  # two cases share one
    same = browser.run("document.querySelector('[data-same]').src === document.querySelectorAll('img')[1].src")
    assert same
    # A drawing keeps its pixels, a photograph does not.
    assert browser.run("getComputedStyle(document.querySelectorAll('img')[1]).imageRendering") == "pixelated"
    assert browser.run("getComputedStyle(document.querySelectorAll('img')[0]).imageRendering") == "auto"


def test_boxes_lie_where_they_should(shown):
    browser = shown()
    for number in (0, 1):  # a photograph of 4:3, and a square
        places = browser.run(
            "((card) => { const p = card.querySelector('img').getBoundingClientRect();"
            " return ['.truth', '.other', '.answer'].map((s) => {"
            " const r = card.querySelector(s).getBoundingClientRect();"
            " return [(r.left - p.left) / p.width, (r.top - p.top) / p.height,"
            " (r.right - p.left) / p.width, (r.bottom - p.top) / p.height]; }); })"
            f"(document.querySelectorAll('.card')[{number}])"
        )
        assert places[0] == pytest.approx([0.1, 0.1, 0.4, 0.4], abs=0.02)
        assert places[1] == pytest.approx([0.6, 0.6, 0.9, 0.9], abs=0.02)
        # The first run is right on the first case, and not on the second.
        assert places[2] == pytest.approx([0.1, 0.1, 0.4, 0.4] if number == 0 else [0.6, 0.6, 0.9, 0.9], abs=0.02)


def choose(browser, name, times):
    """Chooses an option as one does without a mouse."""
    browser.run(f"document.querySelector('[name={name}]').focus()")
    browser.press("ArrowDown", times)


def count(browser):
    """Cards that are visible; the number that is told has to be the same."""
    told, num = browser.run("document.getElementById('shown').textContent"), browser.run(SHOWN)
    assert told == f"{num} of {NUM} shown"
    return num


def test_filters_by_keyboard(shown):
    browser = shown()
    assert count(browser) == NUM
    choose(browser, "category", 1)
    assert browser.run("document.querySelector('[name=category]').value") == "bird"
    assert count(browser) == 13
    choose(browser, "split", 1)
    assert count(browser) == 5  # birds 1, 3, 5, 7, 9
    choose(browser, "run", 1)
    choose(browser, "verdict", 1)
    assert browser.run("document.querySelector('[name=verdict]').value") == "right"
    assert count(browser) == 0  # the first run is wrong on every bird
    assert browser.run("document.getElementById('none').checkVisibility()")
    choose(browser, "run", 1)
    assert count(browser) == 5  # the second is right on all of these
    # Only its answers and boxes are seen now.
    said = "[...document.querySelectorAll('.card:not([hidden]) .said')].filter(s => s.checkVisibility())"
    assert browser.run(f"[...new Set({said}.map(s => s.dataset.run))]") == [SECOND]
    boxes = "[...document.querySelectorAll('.card:not([hidden]) rect.answer')].filter(s => s.checkVisibility())"
    assert browser.run(f"[...new Set({boxes}.map(s => s.dataset.run))]") == [SECOND]
    assert browser.run("location.hash") == "#run=second&category=bird&split=seen&verdict=right"
    browser.click("#filters button")
    browser.until(SHOWN + f" === {NUM}")
    assert count(browser) == NUM
    assert browser.run("location.hash") == ""
    assert browser.errors == []


def test_known_and_unknown_entities(shown):
    browser = shown()
    choose(browser, "knowledge", 1)
    assert count(browser) == 10
    choose(browser, "knowledge", 1)
    assert count(browser) == 16


def test_runs_that_differ(shown):
    browser = shown()
    choose(browser, "verdict", 3)
    assert browser.run("document.querySelector('[name=verdict]').value") == "differ"
    # 1, 3, 5, 7, 9, 11: only the second is right; 14, 16, .. 24: only the first.
    assert count(browser) == 12


def test_reasoning_and_verdict_are_asked_of_the_same_answer(shown):
    browser = shown()
    choose(browser, "reasoning", 1)
    assert count(browser) == 2  # 3 and 4
    choose(browser, "verdict", 2)
    assert count(browser) == 1  # 3, where the first run is wrong
    choose(browser, "reasoning", 1)
    assert count(browser) == 1  # 5: wrong reasoning, and wrong of the first run
    choose(browser, "reasoning", 1)
    assert count(browser) == 0
    choose(browser, "reasoning", 1)
    assert browser.run("document.querySelector('[name=reasoning]').value") == "none"


def test_search_by_a_part_of_the_name_with_or_without_accents(shown):
    browser = shown()
    browser.click("[name=name]")
    browser.write("cafe <")
    named = sum(NAMES[n % 3].startswith("Café") and n not in (3, 4, 5, 6) for n in range(NUM))
    assert count(browser) == named == 8
    browser.write("q")
    assert count(browser) == 0


def test_a_view_can_be_sent_on(shown):
    browser = shown("#category=dog&run=second&verdict=wrong")
    assert count(browser) == 6  # 14, 16, .. 24
    assert browser.run("document.querySelector('[name=run]').value") == SECOND
    browser.run("location.hash = 'name=hobby'")
    browser.until("document.querySelector('[name=name]').value === 'hobby'")
    assert count(browser) == sum(NAMES[n % 3] == "Hobby" and n not in (3, 4, 5, 6) for n in range(NUM)) == 7
    assert browser.run("document.querySelector('[name=category]').value") == ""
    # What this page does not have is not asked for.
    assert count(shown("#category=unicorn&nothing=1")) == NUM
    # A link to a part of the page is no view.
    assert count(shown("#accuracy")) == NUM


def test_all_controls_are_reached_by_tab(shown):
    browser = shown()
    browser.run("document.querySelector('#filters select').focus()")
    reached = [browser.run("document.activeElement.name")]
    for _ in range(7):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.name || document.activeElement.type"))
    assert reached == ["run", "category", "split", "knowledge", "verdict", "reasoning", "name", "reset"]


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_light_and_dark(shown, dark):
    browser = shown(dark=dark)
    colours = browser.run(
        "['body', '.card', '.note', '#filters select'].map(s => { const e = document.querySelector(s); let g = e;"
        " while (getComputedStyle(g).backgroundColor === 'rgba(0, 0, 0, 0)') g = g.parentElement;"
        " return [getComputedStyle(e).color, getComputedStyle(g).backgroundColor]; })"
    )
    for ink, ground in colours:
        light = sorted(luminance(colour) for colour in (ink, ground))
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, (ink, ground)  # WCAG 2.2, level AA
    assert (luminance(colours[0][1]) < 0.1) == dark


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_narrow_window_needs_no_scrolling_to_the_side(shown):
    browser = shown(width=380, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= 380
    choose(browser, "run", 1)
    assert browser.run("document.documentElement.scrollWidth") <= 380


def test_it_prints_without_controls(shown, page, tmp_path):
    browser = shown("#category=bird")
    assert browser.pdf().startswith(b"%PDF")
    browser.picture(tmp_path / "page.png")
    with Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())) as image:
        assert image.size == (1280, 900)
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 20  # something is drawn
    browser.media("print")
    assert not browser.run("document.getElementById('filters').checkVisibility()")
    assert browser.run(SHOWN) == 13


def test_the_numbers_on_the_page_are_those_of_the_file(shown, page):
    record = json.loads(page.with_name("results.json").read_text("utf-8"))
    browser = shown()
    cells = browser.run(
        "[...document.querySelectorAll('#accuracy tbody tr')][0].innerText.split('\\n').join(' ').split(/\\s+/)"
    )
    for run in (FIRST, SECOND):
        figure = next(one for one in record["runs"][run]["figures"] if one["by"] == "all")
        assert f"{100 * figure['accuracy']['value']:.1f}" in cells
        assert f"{100 * figure['accuracy']['low']:.1f}" in cells
