"""Products by oneDNN beside those of torch: values, gradients, and the cases that are left to torch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kvg.linear import LEAST, Linear, linear, packed, product, use_linear


@pytest.fixture(autouse=True, params=[False, True], ids=["oneDNN", "MKL"])
def intel(request, monkeypatch):
    monkeypatch.setattr("kvg.linear.is_intel", lambda: request.param)
    return request.param


SHAPES = [(64, 192, 384), (7, 300, 640), (1, 1, 3)]  # rows, inputs, outputs: the last is left to torch


def test_two_of_the_shapes_are_large_enough():
    assert [rows * width * outputs >= LEAST for rows, width, outputs in SHAPES] == [True, True, False]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize(("rows", "width", "outputs"), SHAPES)
def test_values_and_gradients_are_those_of_torch(rows, width, outputs, lead, bias):
    torch.manual_seed(0)
    inputs = [torch.randn(*lead, rows, width), torch.randn(outputs, width) / width**0.5]
    inputs += [torch.randn(outputs)] if bias else []
    upstream = torch.randn(*lead, rows, outputs)
    results = []
    for function in (linear, F.linear):
        leaves = [one.clone().requires_grad_() for one in inputs]
        out = function(*leaves)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(product(*inputs[:2]), inputs[0] @ inputs[1].T, rtol=1e-5, atol=1e-4)


def test_gradients_are_those_of_finite_differences_where_only_a_part_is_trained():
    states, weight = torch.randn(64, 192, requires_grad=True), torch.randn(384, 192)
    linear(states, weight).sum().backward()
    torch.testing.assert_close(states.grad, weight.sum(0).expand(64, -1), rtol=1e-4, atol=1e-4)


def test_a_model_keeps_its_weights_and_their_names(intel):
    model = nn.Sequential(nn.Linear(192, 512), nn.GELU(), nn.Linear(512, 192, bias=False), nn.LayerNorm(192))
    plain = copy.deepcopy(model)
    use_linear(model)
    kind = nn.Linear if intel else Linear
    assert [type(layer) for layer in model] == [kind, nn.GELU, kind, nn.LayerNorm]
    assert list(model.state_dict()) == list(plain.state_dict())
    states = torch.randn(32, 192)
    torch.testing.assert_close(model(states), plain(states), rtol=1e-5, atol=1e-5)


def test_other_types_are_left_to_torch():
    states, weight = torch.randn(64, 192), torch.randn(384, 192)
    assert torch.equal(linear(states.double(), weight.double()), F.linear(states.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(states, weight), F.linear(states, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_copy_of_the_weight_gives_the_same(dtype, bias):
    torch.manual_seed(0)
    states, weight = torch.randn(64, 192, dtype=dtype), torch.randn(384, 192, dtype=dtype) / 14
    added = torch.randn(384, dtype=dtype) if bias else None
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = F.linear(states, weight, added)
    torch.testing.assert_close(packed(weight, added, 64)(states), expected, rtol=tolerance, atol=tolerance)
