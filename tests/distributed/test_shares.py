"""A model that is never whole: each of two processes reads its own rows of the files, and exports tensor by tensor."""

from __future__ import annotations

import copy
import multiprocessing
import os
import traceback

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen3_vl import Qwen3VL
from kvg.backbones.lora import LoRASettings
from kvg.backbones.stored_weights import StoredTensor, deferred_weights

DEADLINE_S = 240
CASES = [
    (None, "once", "float32"),
    (LoRASettings(r=2), "layer", "bfloat16"),
    (LoRASettings(r=2), "once", "float32"),
    (LoRASettings(r=2, dora=True), "layer", "bfloat16"),
    (LoRASettings(r=2, dora=True), "once", "float32"),
]


def _process(rank, port, work, args):
    try:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        work(init_device_mesh("cpu", (2,)), *args)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@pytest.fixture
def in_two(find_port):
    """Runs a function of a mesh in two processes of one group."""

    def run(work, *args):
        port, context = find_port(), multiprocessing.get_context("fork")
        processes = [context.Process(target=_process, args=(rank, port, work, args)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(DEADLINE_S)
            if process.is_alive():
                process.kill()
        assert [process.exitcode for process in processes] == [0, 0]

    return run


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def toy(request, tmp_path_factory):
    """A toy's folder; its embeddings have an odd number of rows, which two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("toy") / request.param
    backbone = Backbone("tiny", Qwen3VL() if request.param == "qwen3_vl" else None)
    backbone.model.resize_token_embeddings(1025, mean_resizing=False)
    backbone.export(folder)
    return str(folder)


def whole(backbone):
    state = backbone.model.state_dict().items()
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state}


def shares_hold_what_was_stored(mesh, folder):
    for lora, gather, dtype in CASES:
        torch.manual_seed(1)
        plain = Backbone(folder, lora=lora, dtype=dtype)
        torch.manual_seed(1)  # of the adapters
        with deferred_weights():
            policy = Backbone(folder, lora=lora, dtype=dtype)
        assert all(p.is_meta or "lora_" in name for name, p in policy.named_parameters())
        reference = copy.deepcopy(policy)
        policy.shard(mesh, gather)
        reference.shard(mesh)
        for backbone in (policy, reference):
            state, expected = whole(backbone), plain.model.state_dict()
            assert state.keys() == expected.keys()
            for name, value in state.items():
                assert value.dtype == expected[name].dtype
                assert torch.equal(value, expected[name]), name
            buffers = dict(plain.model.named_buffers())
            for name, value in backbone.model.named_buffers():
                assert value.dtype == buffers[name].dtype
                assert torch.equal(value, buffers[name]), name
            assert backbone.model.get_output_embeddings().weight is backbone.model.get_input_embeddings().weight
            trained = {name: p.requires_grad for name, p in plain.named_parameters()}
            assert {name: p.requires_grad for name, p in backbone.named_parameters()} == trained
        for name in ("config", "generation_config"):
            assert getattr(policy.model, name).to_dict() == getattr(plain.model, name).to_dict()


def test_shares_hold_what_was_stored(toy, in_two):
    in_two(shares_hold_what_was_stored, toy)


def reads_its_own_rows(mesh, folder):
    num_bytes, read_into = [0], StoredTensor.read_into

    def counted(self, place, first=0):
        num_bytes[0] += place.numel() * self.dtype.itemsize
        read_into(self, place, first)

    StoredTensor.read_into = counted
    with deferred_weights():
        backbone = Backbone(folder)
    size = sum(p.numel() * p.element_size() for p in backbone.parameters())
    backbone.shard(mesh)
    own = torch.tensor(num_bytes)
    assert 0.45 * size < int(own) < 0.55 * size
    dist.all_reduce(own)
    assert int(own) == size


def test_a_process_reads_its_own_rows_alone(toy, in_two):
    in_two(reads_its_own_rows, toy)


def adapters_are_merged_row_by_row(mesh, base, folder, dtype):
    with deferred_weights():
        backbone = Backbone(folder, dtype=dtype)
    assert all(p.is_meta for p in backbone.parameters())
    assert not any("lora_" in name for name, _ in backbone.named_parameters())
    plain, expected = Backbone(base, dtype=dtype).model.state_dict(), Backbone(folder, dtype=dtype).model.state_dict()
    backbone.shard(mesh)
    num_merged = 0
    for name, value in whole(backbone).items():
        close = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 2**-7, "atol": 1e-6}
        torch.testing.assert_close(value, expected[name], **close, msg=name)
        num_merged += not torch.equal(value, plain[name])
    assert num_merged == 2 * len(backbone.language.text_model.layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("more", [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 3}}, {"use_dora": True}], ids=str)
def test_adapters_of_a_folder_are_merged_row_by_row(more, dtype, toy, in_two, tmp_path):
    """PEFT's own merging of a model that is whole is the reference."""
    model = Backbone(toy).model
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|down_proj)", **more)
    adapted = get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "magnitude" in name:  # which begin such that a fresh adapter does nothing
            parameter.data.add_(torch.rand_like(parameter), alpha=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    in_two(adapters_are_merged_row_by_row, toy, str(tmp_path / "adapter"), dtype)


@pytest.mark.parametrize(
    "more",
    [{"trainable_token_indices": [5]}, {"modules_to_save": ["merger"]}, {"target_modules": ["q_proj", "embed_tokens"]}],
    ids=str,
)
def test_adapters_that_change_more_are_merged_in_a_whole_model(more, toy, tmp_path):
    targets = {"target_modules": r".*language_model.*\.q_proj", **more}
    get_peft_model(Backbone(toy).model, LoraConfig(r=4, **targets)).save_pretrained(tmp_path)
    with deferred_weights():
        backbone = Backbone(str(tmp_path))
    assert backbone.stored is None
    assert not any(p.is_meta for p in backbone.parameters())
