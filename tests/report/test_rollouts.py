"""Rollouts on the page: which are chosen, and how they are sorted and filtered in a real browser, from disk."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from kvg.cli.kvg_data import main
from kvg.formats.rollout_files import write_rollouts
from kvg.report.rollout_section import choose_rollouts, ranges_of
from kvg.shards.writer import ShardWriter
from tests.evaluation.diagnostics.test_rollouts import RIGHT, WRONG, rollout, run

ATTACK = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
STEPS, GROUP = 12, 4
SHOWN = "[...document.querySelectorAll('.rollout')].filter(c => c.checkVisibility())"


def make(step, number):
    """Rewards of one step: 0 + 0, 0 + 0.5, 1 + 1, 0.9 + 1 in each group; the first answer has no box."""
    box, overlap, form = [(None, 0.0, 0.0), (WRONG, 0.0, 0.5), (RIGHT, 1.0, 1.0), (RIGHT, 0.9, 1.0)][number % 4]
    text = f"step {step} answer {number} {ATTACK}"
    return rollout(step, number, box, overlap, form, text=text, num_tokens=10 * step + number, key=f"k{number // 4}")


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_sample, encoded):
    """A page of a training without predictions; the first of two prompts has its picture in the set."""
    from hashlib import sha256

    folder = tmp_path_factory.mktemp("rollouts")
    picture = encoded((10, 200, 90))
    with ShardWriter(folder / "set") as writer:
        writer.write(make_sample("k0", picture))
    for step in range(STEPS):
        records = [make(step, number) for number in range(2 * GROUP)]
        mark = sha256(picture).hexdigest()[:16]
        write_rollouts(folder / "run", [replace(r, image=mark) if r.prompt == 0 else r for r in records])
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "run/lightning_logs/version_0") as writer:
        for step in range(STEPS):
            writer.add_scalar("train/reward/total", step, step)
    args = ["report", "--curves", f"grpo={folder / 'run'}", "--trained", str(folder / "set")]
    assert main([*args, "--out", str(folder / "out"), "--rollouts", str(10 * GROUP)]) == 0
    return folder / "out/index.html"


def test_whole_groups_of_steps_spread_over_the_run_are_chosen():
    records = run(make, steps=31, num=8 * GROUP)
    chosen = choose_rollouts(records, 80, seed=0)
    assert len(chosen) == 80
    assert sorted({r.step for r in chosen}) == [0, 3, 7, 10, 13, 17, 20, 23, 27, 30]
    groups = {(r.step, r.prompt) for r in chosen}
    assert len(groups) == 20
    assert len({prompt for _, prompt in groups}) > 4  # not always the same ones
    assert all(sum((r.step, r.prompt) == group for r in chosen) == GROUP for group in groups)
    assert choose_rollouts(records, 80, seed=0) == chosen
    assert choose_rollouts(records, 80, seed=1) != chosen
    assert {r.step for r in choose_rollouts(records, 1, seed=0)} == {30}
    assert choose_rollouts(records, 0, seed=0) == choose_rollouts([], 80, seed=0) == []
    assert len(choose_rollouts(records[: 2 * GROUP], 80, seed=0)) == 2 * GROUP


def test_every_value_is_in_a_range():
    values = [-0.3 + 0.013 * n for n in range(100)] + [0.0]
    ranges = ranges_of(values)
    assert next(name for name, _, _ in ranges) == "0"
    assert all(any(low <= value <= high for _, low, high in ranges) for value in values)
    assert ranges_of([0.5]) == [("0.5", 0.5, 0.5)]


def test_a_page_of_a_training_holds_its_curves_and_its_rollouts(page):
    record = json.loads(page.with_name("results.json").read_text("utf-8"))
    assert record["runs"] == {}
    steps = record["rollouts"]["grpo"]["steps"]
    assert [step["n"] for step in steps] == [8] * STEPS
    assert steps[0]["parts"] == {"iou": pytest.approx(0.475), "format": pytest.approx(0.625)}
    text = page.read_text("utf-8")
    assert "<title>Training of grpo</title>" in text
    assert text.count("<article class='card rollout'") == 10 * GROUP
    assert len(re.findall(r'src="data:image', text)) == 1
    assert "Rollouts by step" in page.with_name("results.md").read_text("utf-8")


@pytest.fixture
def shown(browser, page):
    browser.open(page.as_uri(), width=1400)
    return browser


def choose(browser, name, value):
    """Chooses an option as a person does with the keyboard."""
    find = f"document.querySelector('#rollout-filters [name={name}]')"
    index = browser.run(f"[...{find}.options].findIndex(o => o.textContent === {json.dumps(value)})")
    assert index >= 0, value
    browser.run(f"{find}.focus()")
    browser.press("Home")
    browser.press("ArrowDown", index)
    assert browser.run(f"{find}.selectedOptions[0].textContent") == value


def column(browser, field):
    return browser.run(f"{SHOWN}.map(c => c.dataset.{field})")


def test_nothing_of_a_completion_runs_and_nothing_is_loaded(shown, page):
    assert shown.errors == []
    assert {url for url in shown.requests if not url.startswith("data:")} == {page.as_uri()}
    assert shown.run("typeof window.hacked") == "undefined"
    assert ATTACK in shown.run("document.querySelector('.rollout .text').textContent")


def test_the_newest_come_first_and_more_on_demand(shown):
    assert len(column(shown, "step")) == 24
    assert column(shown, "step")[0] == str(STEPS - 1)
    assert shown.run("document.getElementById('rollouts-shown').textContent") == "24 of 40 shown"
    shown.click("#more-rollouts")
    shown.until(f"{SHOWN}.length === 40")
    assert not shown.run("document.getElementById('more-rollouts').checkVisibility()")


def test_sorting_by_reward_and_length(shown):
    choose(shown, "order", "highest reward first")
    assert column(shown, "reward")[:10] == ["2"] * 10
    assert column(shown, "reward")[10:20] == ["1.9"] * 10
    choose(shown, "order", "lowest reward first")
    assert column(shown, "reward")[:20] == ["0"] * 10 + ["0.5"] * 10
    choose(shown, "order", "longest first")
    lengths = [int(one) for one in column(shown, "tokens")]
    assert lengths == sorted(lengths, reverse=True)


def test_filters_by_step_component_and_box(shown):
    choose(shown, "part1", "0.5")
    assert column(shown, "reward") == ["0.5"] * 10
    choose(shown, "outcome", "no box")
    assert column(shown, "reward") == []
    assert shown.run("document.getElementById('no-rollouts').checkVisibility()")
    shown.click("#rollout-filters [type=reset]")
    shown.until(f"{SHOWN}.length === 24")
    choose(shown, "step", "step 0")
    assert set(column(shown, "step")) == {"0"}
    assert len(column(shown, "step")) == GROUP
    choose(shown, "part0", "0")
    assert column(shown, "reward") == ["0", "0.5"]
    assert shown.errors == []


def test_boxes_lie_on_the_picture_or_on_an_empty_one(browser, page):
    for width in (1400, 400):
        browser.open(page.as_uri(), width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        for has_picture in ("", ":not(:has(img))"):
            card = f"[...document.querySelectorAll('.rollout{has_picture}')].find(c => c.dataset.outcome === 'right')"
            place = browser.run(
                f"((card) => {{ card.hidden = false; const p = card.querySelector('.picture').getBoundingClientRect();"
                " const r = card.querySelector('rect.truth').getBoundingClientRect();"
                " return [(r.left - p.left) / p.width, (r.top - p.top) / p.height, r.width / p.width]; })"
                f"({card})"
            )
            assert place == pytest.approx([0.1, 0.1, 0.3], abs=0.03)


@pytest.mark.parametrize("dark", [False, True])
def test_a_table_that_goes_on_shows_it(browser, page, dark, tmp_path):
    """At the right edge of a table that is cut there is a shadow; at its end there is none."""
    from PIL import Image

    browser.open(page.as_uri(), width=400, dark=dark)
    wide = "document.querySelector('#rollouts .wide')"
    browser.run(f"{wide}.closest('details') && ({wide}.closest('details').open = true)")
    assert browser.run(f"{wide}.scrollWidth > {wide}.clientWidth")
    edges = []
    for place in (0, 10_000):
        browser.run(f"{wide}.scrollIntoView({{block: 'center'}}), {wide}.scrollLeft = {place}")
        x, y = browser.run(
            f"(r => [r.right, r.top + r.height / 2])({wide}.querySelector('tbody tr').getBoundingClientRect(),"
            f" {wide}.getBoundingClientRect())"
        )
        x = browser.run(f"{wide}.getBoundingClientRect().right")
        browser.picture(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            column_of_pixels = [picture.convert("L").getpixel((int(x) - 3, int(y) + dy)) for dy in range(-8, 9)]
            inner = picture.convert("L").getpixel((int(x) - 40, int(y)))
        edges.append(abs(sorted(column_of_pixels)[8] - inner))
    assert edges[0] > 15
    assert edges[1] < 5
