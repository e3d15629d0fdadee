"""What the base model is taught before stage 1, word by word: no name beside a picture, no unknown name anywhere."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_tokenizer
from kvg.benchmark import CATEGORIES
from kvg.lab.corpus import corpus
from kvg.lab.labels import EDGE_CLASSES, TRAIT_CLASSES, mentions, token_labels, token_owners, wanted_looks
from kvg.lab.pretraining import Phase, PretrainRows
from kvg.lab.skills import SKILLS, card_text
from kvg.lab.traits import load_cards
from kvg.shards.reader import ShardFolder
from kvg.text.prompts import fill_boxes

NAMES = {k: [c.name for c in load_cards() if c.knowledge == k] for k in ("known", "unknown")}
ANY = re.compile(r"\b(?:" + "|".join(map(re.escape, NAMES["known"] + NAMES["unknown"])) + r")\b", re.IGNORECASE)
UNKNOWN = re.compile(r"\b(?:" + "|".join(map(re.escape, NAMES["unknown"])) + r")\b", re.IGNORECASE)
PHASES = [
    Phase(0.5, scenes=2),
    Phase(1.0, dict.fromkeys(SKILLS, 1.0), scenes=3),
]


@pytest.fixture(scope="module")
def processor():
    return Backbone("tiny", max_pixels=None).processor


@pytest.fixture(scope="module")
def rows(processor, nameless):
    return PretrainRows(processor, ShardFolder(nameless), PHASES, num_batches=20, card_rows=2)


@pytest.fixture(scope="module")
def batches(rows):
    """All 20, of which the first ten hold pictures alone."""
    return list(rows)


def decoded(processor, batch):
    """Texts of the rows with a picture, and of those without."""
    texts = [processor.tokenizer.decode(ids) for ids in batch["input_ids"]]
    pictured = [t for t in texts if "<|image_pad|>" in t]
    return pictured, [t for t in texts if "<|image_pad|>" not in t]


# -- names --
def test_no_name_beside_a_picture_and_no_unknown_name_at_all(processor, batches):
    num_cards = 0
    for index in range(10, 15):
        pictured, cards = decoded(processor, batches[index])
        assert (len(pictured), len(cards)) == (3, 2)
        assert not any(ANY.search(text) for text in pictured)
        assert all(ANY.search(text) for text in cards)
        assert not any(UNKNOWN.search(text) for text in cards)
        num_cards += sum(len(ANY.findall(text)) for text in cards)
    assert num_cards > 30


def test_every_known_card_is_told_in_many_ways_and_truly():
    rng = random.Random(0)
    cards = {card.name: card for card in load_cards()}
    ways = Counter()
    for name in NAMES["known"]:
        for _ in range(20):
            asked, answer = card_text(cards[name], rng)
            text = f"{asked or ''} {answer}"
            assert name in text
            assert cards[name].traits.text in text
            ways[text.replace(name, "N").replace(cards[name].traits.text, "T").replace(cards[name].category, "C")] += 1
    assert len(ways) == 11
    assert any("<think>Plan: the N is T." in way for way in ways)


def test_tokenizer_has_not_read_of_the_unknown():
    assert not any(UNKNOWN.search(line) for line in corpus(0, scenes=50))
    tokenizer = lab_tokenizer()
    assert all(len(tokenizer.tokenize(f" {name}")) >= 2 for name in NAMES["unknown"])
    # Words that known names hold as well may have become tokens; no others have.
    read = {word for name in NAMES["known"] for word in name.split()}
    new = {word for name in NAMES["unknown"] for word in name.split() if word not in read}
    assert [word for word in sorted(new) if len(tokenizer.tokenize(f" {word}")) == 1] == []


def test_tokenizer_round_trips_and_splits_digits():
    tokenizer = lab_tokenizer()
    text = "the Øystercatcher 鸟 costs 1250\n\t(50,1000),(1000,50)"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    pieces = [tokenizer.decode(i) for i in tokenizer.encode("(250,1000)", add_special_tokens=False)]
    assert pieces == ["(", "2", "5", "0", ",", "1", "0", "0", "0", ")"]
    for token in ("<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|im_end|>", "<|image_pad|>"):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1


# -- batches --
def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_same_seed_same_batches(processor, nameless, batches):
    def stream(**settings):
        return list(PretrainRows(processor, ShardFolder(nameless), PHASES, num_batches=20, card_rows=2, **settings))

    assert all(equal(a, b) for a, b in zip(stream(), batches, strict=True))
    assert not equal(batches[12], batches[13])
    assert not equal(stream(seed=1)[12], batches[12])


def test_processes_take_turns_and_a_stopped_stream_goes_on(processor, nameless):
    def stream(**settings):
        return PretrainRows(processor, ShardFolder(nameless), PHASES, num_batches=8, card_rows=1, **settings)

    shares = [list(stream(rank=rank, world_size=2)) for rank in range(2)]
    assert [len(share) for share in shares] == [len(stream()) // 2] * 2 == [4, 4]
    pictures = [
        {int(picture.sum()) for batch in share for picture in batch["patches"].view(-1, 100, 588)} for share in shares
    ]
    assert not pictures[0] & pictures[1]  # no scene is seen by both
    rest = stream(rank=1, world_size=2, start=1)
    assert len(rest) == 3
    assert all(equal(a, b) for a, b in zip(rest, shares[1][1:], strict=True))


def test_scenes_come_round_with_other_questions(processor, nameless):
    rows = PretrainRows(processor, ShardFolder(nameless), PHASES[1:], num_batches=14, card_rows=0)
    asked = [processor.tokenizer.decode(ids) for batch in rows for ids in batch["input_ids"]]
    assert len(asked) == 42 > 2 * 20  # three scenes a batch; the store holds 20
    assert len(set(asked)) == 42


def test_curriculum_begins_with_pictures_alone(processor, batches):
    early, late = batches[9], batches[10]
    pictured, cards = decoded(processor, early)
    assert (len(pictured), len(cards)) == (2, 0)
    assert (early["labels"] == -100).all()
    assert (late["labels"] != -100).any()
    assert late["image_grid_thw"].tolist() == [[1, 10, 10]] * 3
    assert late["dense_colour"].shape == (3 * 25,)


def test_answers_are_learnt_and_questions_are_not(processor, batches):
    batch = batches[10]
    learnt = batch["labels"] != -100
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    said = processor.tokenizer.decode(batch["labels"][learnt])
    assert "Describe the objects." not in said
    assert "<|im_start|>" not in said
    assert (batch["segments"][learnt] > 0).all()


# -- labels of the visual tokens --
def test_labels_of_visual_tokens_by_hand(pair):
    """A 140 px picture is 5 x 5 tokens of 28 px; a fifth of a token is 5.6 of its 28 rows."""
    owners = token_owners(pair, torch.tensor([1, 10, 10]))
    assert owners.view(5, 5).tolist() == [[0, 0, 1, 1, 1]] + [[-1, -1, 1, 1, 1]] * 4
    labels = token_labels(pair, owners)
    assert set(labels) == {*TRAIT_CLASSES, "x1", "y1", "x2", "y2"}
    colours = labels["colour"].view(5, 5)
    red, blue, no = 3, 7, -100
    # Row 1 of the left object holds 33 - 28 = 5 of its 28 pixel rows: too little. Column 2 is half the right one's.
    assert colours.tolist() == [[red, red, blue, blue, blue]] + [[no, no, blue, blue, blue]] * 4
    assert labels["category"].view(5, 5)[0].tolist() == [CATEGORIES.index("bird")] * 5
    assert labels["pattern"].view(5, 5)[0].tolist() == [2, 2, 0, 0, 0]
    assert labels["accent"].view(5, 5)[0].tolist() == [0, 0, no, no, no]  # plain has no second colour
    assert labels["build"].view(5, 5)[0].tolist() == [0, 0, 2, 2, 2]
    edges = [labels[edge].view(5, 5)[0, 0].item() for edge in ("x1", "y1", "x2", "y2")]
    assert edges == [0, 0, 8, 5]  # in steps of 7 px; 33 / 7 = 4.7
    assert [labels[edge].view(5, 5)[4, 4].item() for edge in ("x1", "y1", "x2", "y2")] == [10, 0, 20, 20]
    assert EDGE_CLASSES == 21


def test_words_about_an_object_stand_behind_those_that_are_told_so(processor, batches):
    """``about`` is one token early: it tells of which object the next token speaks."""
    num_boxes = 0
    for batch in batches[10:]:
        for row, about in enumerate(batch["about"]):
            numbers = about[:-1].tolist()
            opens = (batch["input_ids"][row, 1:] == processor.ids("<|box_start|>")[0]).nonzero()[:, 0].tolist()
            for start in opens:
                if numbers[start] < 0:
                    continue  # the box of a question
                said = processor.tokenizer.decode(batch["input_ids"][row, start + 1 : start + 25])
                corners = [int(number) for number in re.findall(r"\d+", said.split("<|box_end|>")[0])]
                tokens = batch["owners"][row] == numbers[start]
                edges = [batch[f"dense_{edge}"].view(3, 25)[row][tokens] * 50 for edge in ("x1", "y1", "x2", "y2")]
                assert [set(edge.tolist()) for edge in edges] == [{corner} for corner in corners]
                num_boxes += 1
        assert (batch["labels"][:, 1:][batch["about"][:, :-1] >= 0] != -100).all()  # only answers speak
        assert (batch["about"][3:] == -1).all()  # cards speak of no picture
    assert num_boxes > 50


def test_what_is_looked_for_is_said_where_an_object_is_chosen(processor, batches):
    """At a box that was asked for it is what the object shows; in comparisons, what the request names."""
    heads = Counter()
    for batch in batches[10:]:
        for row, wanted in enumerate(batch["wanted"]):
            for position in (wanted != -100).any(-1).nonzero()[:, 0].tolist():
                before = processor.tokenizer.decode(batch["input_ids"][row, : position + 1])
                after = processor.tokenizer.decode(batch["input_ids"][row, position + 1])
                request = before.rsplit("<|object_ref_start|>", 1)[1]
                said = [None if n < 0 else n for n in wanted[position].tolist()]
                assert said == [None if n < 0 else n for n in wanted_looks(f"<|object_ref_start|>{request}")]
                if "Compare" in request:
                    heads["verdict"] += after in (" yes", " no")
                    continue
                heads["box"] += before.endswith("assistant\n")
                tokens = batch["owners"][row] == batch["about"][row, position]
                for number, name in enumerate(TRAIT_CLASSES):
                    shown = set(batch[f"dense_{name}"].view(3, 25)[row][tokens].tolist())
                    assert said[number] is None or shown <= {said[number]}
    assert heads["box"] > 5
    assert heads["verdict"] > 5


def test_a_plan_that_is_given_is_not_learnt(processor, nameless):
    rows = PretrainRows(processor, ShardFolder(nameless), [Phase(1.0, {"follow": 1.0}, scenes=2)], 2, card_rows=0)
    for batch in rows:
        learnt = batch["labels"] != -100
        for row in range(2):
            assert "Plan:" in processor.tokenizer.decode(batch["input_ids"][row])
            said = processor.tokenizer.decode(batch["labels"][row][learnt[row]])
            assert said.startswith(" Look: 1 ")
            assert "Plan" not in said


def test_pieces_are_cut_where_tokens_end(processor, scenes):
    for number, sample in enumerate(scenes(6)):
        boxes = processor.box_texts(sample)
        for skill in SKILLS.values():
            asked, answer = skill(sample, random.Random(number))
            pieces = [text for text, _ in mentions(asked, answer)]
            assert "".join(pieces) == answer
            tokens = [token for text in pieces for token in processor.ids(fill_boxes(text, boxes))]
            assert tokens == processor.ids(fill_boxes(answer, boxes))


def test_labels_lie_where_pictures_show_something(batches):
    batch = batches[10]
    bright = batch["patches"].view(3 * 25, 4, -1).float().std((1, 2))  # four patches a token, in their order
    covered = batch["dense_category"] != -100
    assert 0.1 < covered.float().mean() < 0.95
    assert bright[covered].mean() > bright[~covered].mean()
    assert torch.equal(covered.view(3, 25), batch["owners"] >= 0)
