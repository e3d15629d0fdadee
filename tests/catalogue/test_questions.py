"""Questions of four choices: what is asked, how answers are read, and when an entity is above guessing."""

from __future__ import annotations

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kvg.catalogue.entry import Entry
from kvg.catalogue.prepared import PreparedPictures
from kvg.catalogue.questions import chance_of, choice_questions, names_by_category
from kvg.errors import DataError
from tests.catalogue.conftest import drawing, encoded


def entry(entity: str, number: int, category: str = "bird") -> Entry:
    return Entry("mine", f"{entity}/{number}.jpg", entity, category, 96, 64, f"{number:064x}", f"{number:016x}")


def entries(names: str, num: int, category: str = "bird") -> list[Entry]:
    return [entry(name, number, category) for name in names for number in range(num)]


def questions_about(catalogue: list[Entry], pictures: int = 50, questions: int = 50, seed: int = 0):
    return list(choice_questions(catalogue, names_by_category(catalogue), seed, pictures, questions))


def test_every_entity_is_asked_for_as_often_as_told_beside_three_of_its_category():
    catalogue = entries("PQRSTU", 10) + entries("VWXYZ", 3, "car")
    questions = questions_about(catalogue, questions=12)
    assert Counter(question.entry.entity for question in questions) == dict.fromkeys("PQRSTUVWXYZ", 12)
    for question in questions:
        assert question.options[question.answer] == question.entry.entity
        assert len(set(question.options)) == 4
        assert set(question.options) <= set("PQRSTU" if question.entry.category == "bird" else "VWXYZ")
    assert questions[0].text.splitlines() == [
        "Which bird is shown in the picture?",
        *(f"{letter}. {name}" for letter, name in zip("ABCD", questions[0].options, strict=True)),
        "Answer with the letter only.",
    ]
    places = Counter(question.answer for question in questions_about(catalogue))
    assert min(places.values()) > 0.2 * 550  # 550 questions: about 137 each


def test_few_pictures_are_gone_round_with_other_distractors():
    catalogue = entries("ABCDEFG", 2)
    own = [question for question in questions_about(catalogue, questions=4) if question.entry.entity == "A"]
    assert [(question.entry.ref, question.turn) for question in own] == [
        ("A/0.jpg", 0), ("A/1.jpg", 0), ("A/0.jpg", 1), ("A/1.jpg", 1),
    ]  # fmt: skip
    for first, second in zip(own[:2], own[2:], strict=True):
        assert set(first.options) & set(second.options) == {"A"}
        assert set(first.options) | set(second.options) == set("ABCDEFG")


def test_many_pictures_are_drawn_from():
    catalogue = entries("ABCD", 20)
    chosen = {question.entry.ref for question in questions_about(catalogue, pictures=5) if question.entry.entity == "A"}
    assert len(chosen) == 5
    assert chosen != {f"A/{number}.jpg" for number in range(5)}
    assert chosen != {q.entry.ref for q in questions_about(catalogue, pictures=5, seed=1) if q.entry.entity == "A"}


def test_the_seed_and_the_picture_decide_and_nothing_else():
    catalogue = entries("ABCDEF", 4)
    whole = {(q.entry.ref, q.turn): q.options for q in questions_about(catalogue, questions=8)}
    names = names_by_category(catalogue)
    alone = list(choice_questions(catalogue[:4], names, 0, 50, 8))
    assert {(q.entry.ref, q.turn): q.options for q in alone} == {k: v for k, v in whole.items() if k[0][0] == "A"}
    assert {(q.entry.ref, q.turn): q.options for q in questions_about(catalogue, questions=8, seed=1)} != whole


def test_small_categories_have_fewer_options_and_a_single_entity_none():
    catalogue = entries("AB", 2) + entries("CDE", 2, "car") + entries("F", 2, "dog")
    sizes = {question.entry.entity: len(question.options) for question in questions_about(catalogue)}
    assert sizes == {"A": 2, "B": 2, "C": 3, "D": 3, "E": 3}


def test_guessing_is_told_from_knowing_by_the_exact_binomial_test():
    assert chance_of(0, 50, 0.25) == pytest.approx(1)
    assert chance_of(50, 50, 0.25) == pytest.approx(0.25**50)
    # 3 of 4 by hand: 4 * 0.25^3 * 0.75 + 0.25^4
    assert chance_of(3, 4, 0.25) == pytest.approx(0.046875 + 0.00390625)
    # From the tables of the binomial distribution with n = 20, p = 0.25: P(X >= 9) = 0.0409, P(X >= 8) = 0.1018
    assert chance_of(9, 20, 0.25) == pytest.approx(0.0409, abs=5e-5)
    assert chance_of(8, 20, 0.25) == pytest.approx(0.1018, abs=5e-5)
    # Of many by the normal distribution: 5000 * 0.25 + 1.6449 * sqrt(5000 * 0.25 * 0.75) = 1300.4
    assert chance_of(1301, 5000, 0.25) == pytest.approx(0.05, abs=0.003)


class Shelf:
    """Pictures by name, counted as they are taken down."""

    def __init__(self, pictures: dict[str, bytes]) -> None:
        self.pictures, self.taken = pictures, 0

    def read(self, ref: str) -> bytes:
        self.taken += 1
        return self.pictures[ref]


def listed(ref: str, data: bytes) -> Entry:
    return Entry("shelf", ref, "Wren", "bird", 96, 64, hashlib.sha256(data).hexdigest(), "0")


def test_pictures_are_shrunk_opaque_and_opened_once(tmp_path):
    cut = drawing(0, (100, 50)).convert("RGBA")
    alpha = np.zeros((50, 100), np.uint8)
    alpha[:, 50:] = 255
    cut.putalpha(Image.fromarray(alpha))
    shelf = Shelf({"cut.png": encoded(cut, "PNG"), "large.jpg": encoded(drawing(1, (800, 400)))})
    pictures = PreparedPictures(tmp_path, {"shelf": shelf}, 200, 10**6)
    for _ in range(2):
        opened = {ref: pictures.read(listed(ref, data)) for ref, data in shelf.pictures.items()}
    assert shelf.taken == 2
    large, small = (Image.open(io.BytesIO(opened[ref])) for ref in ("large.jpg", "cut.png"))
    assert (large.size, large.mode) == ((200, 100), "RGB")
    assert (small.size, small.mode) == ((100, 50), "RGB")
    assert np.abs(np.asarray(small)[:, :42].astype(int) - 127).max() <= 2  # grey, not the colours that were hidden
    assert np.abs(np.asarray(small).astype(int) - np.asarray(cut.convert("RGB")))[:, 60:].mean() < 6


def test_a_picture_that_is_not_what_was_scanned_is_not_shown(tmp_path):
    data = encoded(drawing(0))
    shelf = Shelf({"one.jpg": encoded(drawing(1))})
    pictures = PreparedPictures(tmp_path, {"shelf": shelf}, 200, 10**6)
    with pytest.raises(DataError, match=r"shelf: one.jpg: image: has changed since the scan"):
        pictures.read(listed("one.jpg", data))
    shelf.pictures["one.jpg"] = data
    whole = pictures.read(listed("one.jpg", data))
    (kept,) = tmp_path.rglob("*.jpg")
    kept.write_bytes(whole[:100])  # as a power cut would leave it
    assert pictures.read(listed("one.jpg", data)) == whole
