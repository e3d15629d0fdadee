from __future__ import annotations

import json

from data_modules.recipe import load_replay
from kvg.cli.kvg_data import main
from kvg.lab.traits import load_cards


def test_cards_are_read_back_as_replay(tmp_path, capsys):
    out = tmp_path / "texts/cards.jsonl"
    assert main(["cards", "--out", str(out), "--repeats", "3", "--seed", "1"]) == 0
    known = [card for card in load_cards() if card.known]
    assert f"{3 * len(known)} texts of {len(known)} cards" in capsys.readouterr().out
    texts = load_replay(out)
    assert len(texts) == 3 * len(known)
    assert any(text.prompt is None for text in texts)
    assert any(text.prompt is not None for text in texts)
    for number, text in enumerate(texts):
        card = known[number % len(known)]
        assert card.name in (whole := f"{text.prompt or ''} {text.completion}")
        assert card.traits.text in whole


def test_unknown_names_never_slip_in(tmp_path):
    out = tmp_path / "cards.jsonl"
    main(["cards", "--out", str(out)])
    text = out.read_text()
    assert not [card.name for card in load_cards() if not card.known and json.dumps(card.name)[1:-1] in text]
    main(["cards", "--out", str(out), "--knowledge", "unknown"])
    text = out.read_text()
    assert not [card.name for card in load_cards() if card.known and card.name in text]


def test_seed_decides(tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        main(["cards", "--out", str(tmp_path / name), "--seed", seed, "--knowledge", "all"])
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_repeats_below_one(tmp_path, capsys):
    assert main(["cards", "--out", str(tmp_path / "x"), "--repeats", "0"]) == 2
    assert "--repeats: 0 must be at least 1" in capsys.readouterr().err
