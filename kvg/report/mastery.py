"""Mastery of a catalogue's entities by a model: scores, the five levels, and an HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kvg.benchmark import LEVEL_BOUNDS, level_of
from kvg.catalogue.questions import chance_of
from kvg.report.render import render, render_page

PUBLISHED_SHARES = (0.0118, 0.1140, 0.2136, 0.4679, 0.1927)  # of the paper's entities by level (v3), highest first
CONFIDENCE = 0.95
BINS = 20
_LEVEL_HEADS = ("level", "from", "entities", "share", "published share")
_CATEGORY_HEADS = ("category", "entities", "mean accuracy", "guessing", "above guessing")
_ENTITY_HEADS = (
    "entity", "category", "pictures", "questions", "right", "no option", "accuracy", "level", "above guessing"
)  # fmt: skip


@dataclass
class EntityScore:
    """The score of a model on one entity.

    Attributes:
        category: of the entity.
        entity: its name.
        guess: chance level.
        pictures: number of pictures; questions about one picture are not independent.
        num: number of questions.
        right: number of correct answers.
        unparsed: number of answers without an option; they count as wrong.
        unanswered: number of questions without an answer after all attempts; they count as wrong.
    """

    category: str
    entity: str
    guess: float
    pictures: int = 0
    num: int = 0
    right: int = 0
    unparsed: int = 0
    unanswered: int = 0

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.right / self.num

    @property
    def level(self) -> str:
        """Level by the published thresholds."""
        return level_of(self.accuracy)

    @property
    def chance(self) -> float:
        """Probability that guessing gives at least as many correct answers."""
        return chance_of(self.right, self.num, self.guess)

    def record(self) -> dict[str, Any]:
        """The score as JSON data."""
        return {
            "entity": self.entity,
            "category": self.category,
            "pictures": self.pictures,
            "questions": self.num,
            "right": self.right,
            "unparsed": self.unparsed,
            "unanswered": self.unanswered,
            "guessing": self.guess,
            "accuracy": self.accuracy,
            "level": self.level,
            "chance": self.chance,
            "above_guessing": self.chance <= 1 - CONFIDENCE,
        }


def level_rows(scores: Sequence[EntityScore]) -> list[dict[str, Any]]:
    """Number of entities by level, highest first, beside the published shares."""
    counts = Counter(score.level for score in scores)
    return [
        {
            "level": level,
            "from": bound,
            "entities": counts[level],
            "share": counts[level] / max(1, len(scores)),
            "published": share,
        }
        for (level, bound), share in zip(LEVEL_BOUNDS.items(), PUBLISHED_SHARES, strict=True)
    ]


def guessing(scores: Sequence[EntityScore]) -> list[tuple[float, int, str]]:
    """Chance levels, the most frequent first: share, number of entities with it, and its mastery level."""
    counts = Counter(score.guess for score in scores)
    return [(guess, num, level_of(guess)) for guess, num in counts.most_common()]


def mastery_page(scores: Sequence[EntityScore], title: str) -> str:
    """The self-contained page.

    Args:
        scores: at least one.
        title: of the page.
    """
    guess, _, level = guessing(scores)[0]
    return render_page(
        "mastery.jinja",
        title,
        ("style.css",),
        guess=f"{guess:.0%}",
        level=level,
        above=sum(score.chance <= 1 - CONFIDENCE for score in scores),
        num=len(scores),
        confidence=f"{CONFIDENCE:.0%}",
        histogram=histogram(scores),
        tables=[
            ("Levels", render("plain_table.jinja", heads=_LEVEL_HEADS, rows=_levels(scores))),
            ("Categories", render("plain_table.jinja", heads=_CATEGORY_HEADS, rows=_categories(scores))),
            ("Entities", render("plain_table.jinja", heads=_ENTITY_HEADS, rows=_entities(scores))),
        ],
    )


def histogram(scores: Sequence[EntityScore]) -> Markup:
    """Histogram of entities by accuracy, with the chance level, as inline SVG."""
    width, height, left, top, bottom = 760.0, 300.0, 48.0, 34.0, 62.0
    counts = Counter(min(BINS - 1, int(score.accuracy * BINS + 1e-9)) for score in scores)
    most = max(counts.values())

    def x(share: float) -> float:
        return left + (width - left - 24) * share

    def y(num: float) -> float:
        return top + (height - top - bottom) * (1 - num / most)

    parts = []
    for tick in sorted({0, most // 2, most}):
        line = f'<path class="grid" d="M{left:.1f} {y(tick):.1f}H{width:.1f}"/>'
        parts.append(f'{line}<text x="{left - 6:.1f}" y="{y(tick) + 3.5:.1f}" class="end tiny">{tick}</text>')
    for number, num in sorted(counts.items()):
        low, high = number / BINS, (number + 1) / BINS
        tip = f"{low:.0%} to {high:.0%}: {num} entities"
        shape = f'x="{x(low) + 1:.1f}" y="{y(num):.1f}" width="{x(high) - x(low) - 2:.1f}" height="{y(0) - y(num):.1f}"'
        parts.append(f'<g><title>{tip}</title><rect {shape} rx="2" style="fill:var(--cot_sft_grpo)"/></g>')
    for tenth in range(0, 11, 2):
        parts.append(f'<text x="{x(tenth / 10):.1f}" y="{y(0) + 15:.1f}" class="mid tiny">{tenth * 10}%</text>')
    highest = 1.0
    for number, (level, bound) in enumerate(LEVEL_BOUNDS.items()):
        middle, under = (bound + highest) / 2, y(0) + 40 + 14 * (number % 2)
        parts.append(f'<path class="grid" d="M{x(bound):.1f} {y(0) + 20:.1f}V{y(0) + 27:.1f}"/>')
        parts.append(f'<text x="{x(middle):.1f}" y="{under:.1f}" class="mid tiny">{level}</text>')
        highest = bound
    for number, (guess, num, _) in enumerate(guessing(scores)):
        place = x(guess)
        label = (
            f"{guess:.0%} ({num})" if number else f"guessing {guess:.0%}"
        )  # the most frequent one gets the full label
        parts.append(
            f'<path d="M{place:.1f} {top - 12:.1f}V{y(0):.1f}" style="stroke:var(--answer)" stroke-width="1.5" '
            f'stroke-dasharray="5 4"/><text x="{place:.1f}" y="{top - 17:.1f}" class="mid strong">{label}</text>'
        )
    label = "Entities by accuracy, with the chance level"
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _levels(scores: Sequence[EntityScore]) -> list[list[object]]:
    return [
        [row["level"], f"{row['from']:.0%}", row["entities"], f"{row['share']:.1%}", f"{row['published']:.1%}"]
        for row in level_rows(scores)
    ]


def _categories(scores: Sequence[EntityScore]) -> list[list[object]]:
    rows: list[list[object]] = []
    for category in sorted({score.category for score in scores}):
        own = [score for score in scores if score.category == category]
        above = sum(score.chance <= 1 - CONFIDENCE for score in own)
        mean = sum(score.accuracy for score in own) / len(own)
        rows.append([category, len(own), f"{mean:.1%}", f"{own[0].guess:.0%}", above])
    return rows


def _entities(scores: Sequence[EntityScore]) -> list[list[object]]:
    ordered = sorted(scores, key=lambda score: (score.category, -score.accuracy, score.entity))
    return [
        [
            *(score.entity, score.category, score.pictures, score.num, score.right),
            *(score.unparsed + score.unanswered or "", f"{score.accuracy:.0%}", score.level),
            "yes" if score.chance <= 1 - CONFIDENCE else "",
        ]
        for score in ordered
    ]
