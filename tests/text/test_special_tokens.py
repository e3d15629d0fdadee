from __future__ import annotations

import pickle

import pytest

from kvg.errors import DataError
from kvg.lab.tokenizer import SPECIAL_TOKENS
from kvg.text.special_tokens import ControlTokens, check_plain, check_prompt, check_rationale, control_token_in

CONTROL = sorted(
    set(SPECIAL_TOKENS) - {f"<|{k}_{s}|>" for k in ("object_ref", "box", "quad") for s in ("start", "end")}
)
OTHERS = ["<|image|>", "<|begin_of_text|>", "<|fim_prefix|>", "<|vision_bos|>"]  # of other families


@pytest.mark.parametrize("token", [*CONTROL, *OTHERS])
@pytest.mark.parametrize("check", [check_plain, check_rationale, check_prompt])
def test_no_text_may_hold_a_control_token(check, token):
    with pytest.raises(DataError) as caught:
        check(f"use {token} here", "file line 3", "entity")
    assert (caught.value.where, caught.value.field) == ("file line 3", "entity")
    assert token in str(caught.value)


@pytest.mark.parametrize("mark", ["<|object_ref_start|>", "<|box_end|>", "<|quad_start|>"])
def test_marks_of_names_and_boxes_are_legal_but_in_names(mark):
    check_rationale(f"the {mark} one", "x", "rationale")
    check_prompt(f"the {mark} one", "x", "text")
    with pytest.raises(DataError, match="may not hold"):
        check_plain(f"the {mark} one", "x", "entity")


@pytest.mark.parametrize("tag", ["<think>", "</THINK>", "<answer>", "</answer>", "<image>", "<video>", "<audio>"])
def test_tags_and_placeholders_are_neither_names_nor_reasons(tag):
    for check in (check_plain, check_rationale):
        with pytest.raises(DataError, match="may not hold"):
            check(f"a {tag} b", "x", "entity")
    check_prompt(f"HTML knows {tag}", "x", "text")  # text to be learnt as it is


def test_box_placeholders_belong_to_rationales():
    check_rationale("1 <box:0> red", "x", "rationale")
    with pytest.raises(DataError, match="<box:0>"):
        check_plain("a <box:0> bird", "x", "entity")


@pytest.mark.parametrize("text", ["", "a < b > c", "<|", "|>", "<| a |>", "I <3 |it|>", "x<|>y", "<||>", "<b>bold</b>"])
def test_plain_words_are_let_pass(text):
    for check in (check_plain, check_rationale, check_prompt):
        check(text, "x", "text")
    assert control_token_in(text) is None


def test_a_tokenizers_own_tokens():
    tokens = pickle.loads(pickle.dumps(ControlTokens(["</s>", "[INST]", "<|box_start|>", "<|im_end|>", ""])))
    assert tokens.first_in("a [INST] b") == "[INST]"
    assert tokens.first_in("<|box_start|>") is None
    assert tokens.removed("x <|im_<|im_</s>end|>end|> y") == "x  y"
    with pytest.raises(DataError, match="key: text: may not hold </s>"):
        tokens.check("a</s>", "key", "text")
    assert ControlTokens([]).first_in("<|im_end|>") is None
