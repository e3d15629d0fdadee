"""Completions: tables of valid and invalid texts."""

from __future__ import annotations

import time

import pytest

from kvg.text.completion import parse_completion, write_completion

BOX = "<|box_start|>(1,2),(3,4)<|box_end|>"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>a</think><answer>{BOX}</answer>",
        f"<think>a</think>\n\n<answer>{BOX}</answer>",
        f"  <think>\na\n</think> <answer> {BOX} </answer>  \n",
        f"<think>a</think><answer>{BOX}</answer><|im_end|>",
        f"<think>a</think><answer>{BOX}</answer><|im_end|>\n<|endoftext|><|endoftext|>",
    ],
)
def test_well_formed(text: str) -> None:
    parsed = parse_completion(text)
    assert parsed.well_formed
    assert parsed.tagged
    assert (parsed.rationale, parsed.answer) == ("a", BOX)


@pytest.mark.parametrize(
    ("text", "rationale", "answer", "tagged"),
    [
        ("", "", "", False),
        (BOX, "", BOX, False),  # the direct prompt: all answer, but not well formed
        (BOX + "<|im_end|>", "", BOX, False),
        (f"<answer>{BOX}</answer>", "", BOX, True),
        (f"<think>a</think>{BOX}", "a", "", False),  # a box outside the tags is no answer
        (f"<think>a<answer>{BOX}</answer>", "", BOX, True),  # think never closed
        (f"<think>a</think><answer>{BOX}", "a", "", False),  # cut off by the length limit
        (f"<think>a {BOX}", "", "", False),  # cut off while thinking
        (f"well <think>a</think><answer>{BOX}</answer>", "a", BOX, True),  # text before
        (f"<think>a</think> so <answer>{BOX}</answer>", "a", BOX, True),  # text between
        (f"<think>a</think><answer>{BOX}</answer> done", "a", BOX, True),  # text after
        ("<think>a</think><answer>1</answer><answer>2</answer>", "a", "1", True),  # the first answer counts
        ("<think>a</think><think>b</think><answer>1</answer>", "a", "1", True),
        ("<think>a</think><answer></answer>", "a", "", True),
        ("<think> </think><answer>1</answer>", "", "1", True),
        ("<answer>1</answer><think>a</think>", "a", "1", True),  # wrong order
        ("<think>a<think></think><answer>1</answer>", "a<think>", "1", True),  # nested
        ("<THINK>a</THINK><ANSWER>1</ANSWER>", "", "<THINK>a</THINK><ANSWER>1</ANSWER>", False),
        ("<|im_end|><think>a</think><answer>1</answer>", "a", "1", True),
    ],
)
def test_not_well_formed(text: str, rationale: str, answer: str, tagged: bool) -> None:
    parsed = parse_completion(text)
    assert not parsed.well_formed
    assert (parsed.rationale, parsed.answer, parsed.tagged) == (rationale, answer, tagged)


def test_write_then_read() -> None:
    parsed = parse_completion(write_completion("Plan: x.\nLook: y.", BOX))
    assert parsed.well_formed
    assert (parsed.rationale, parsed.answer) == ("Plan: x.\nLook: y.", BOX)


@pytest.mark.parametrize("text", ["\n" * 50_000 + "x", "<think>" * 5_000, "<answer>" * 5_000 + "</think>" * 5_000])
def test_degenerate_output_is_read_quickly(text: str) -> None:
    start = time.perf_counter()
    assert not parse_completion(text).well_formed
    assert time.perf_counter() - start < 1.0
