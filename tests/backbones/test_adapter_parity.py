"""What a backbone computes from a folder of adapters is what PEFT computes with them beside the weights."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.errors import ConfigError

FORMER = (
    (".model.model.language_model.layers.", ".model.model.layers."),
    (".model.model.language_model.embed_tokens", ".model.model.embed_tokens"),
    (".model.model.language_model.norm", ".model.model.norm"),
    (".model.model.visual.", ".model.visual."),
)
QWEN2, QWEN25 = partial(Backbone, family=Qwen2VL()), partial(Backbone, family=Qwen25VL())
# The language model's linear layers, as ms-swift names them; over the names of transformers before 4.52.
SWIFT = r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of models, with embeddings and output layer tied and untied."""
    folder, found = tmp_path_factory.mktemp("bases"), {}
    for family in (QWEN2, QWEN25):
        for tied in (True, False):
            backbone = family("tiny")
            if not tied:
                backbone.model.config.tie_word_embeddings = False
                backbone.model.config.text_config.tie_word_embeddings = False
                backbone.model.lm_head.weight = nn.Parameter(torch.randn_like(backbone.model.lm_head.weight) * 0.1)
            found[family, tied] = folder / f"{backbone.family.model_type}-{tied}"
            backbone.export(found[family, tied])
    return found


def plain_batch(backbone, samples):
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in samples]
    batch = backbone.processor.collate(examples, samples)
    kinds = (batch.input_ids == backbone.processor.image_token_id).int()
    tensors = batch.pictures.tensors
    plain = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "image_grid_thw": tensors["grid"]}
    pixels = backbone.processor.pictures.pixel_values(tensors["patches"])
    return batch, {**plain, "mm_token_type_ids": kinds, "pixel_values": pixels}


def adapt(family, base, adapter, **settings):
    """Saves adapters of which every tensor differs from what it starts as."""
    torch.manual_seed(1)
    model = get_peft_model(family(str(base)).model, LoraConfig(**{"r": 4, "lora_alpha": 8, **settings}))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * (0.1 if "magnitude" not in name else 0.01))
    model.save_pretrained(adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))


@torch.no_grad()
def compare(family, base, adapter, samples, reference=None):
    """Logits of the backbone and of PEFT, and of the model without adapters."""
    backbone = family(str(adapter)).eval()
    batch, plain = plain_batch(backbone, samples)
    mask = batch.attention_mask.bool()
    without = family(str(base)).eval()
    bare = without.logits(batch)[mask]
    peft = PeftModel.from_pretrained(family(str(base)).model, reference or adapter).eval()
    theirs = peft(**plain).logits[mask]
    ours = backbone.logits(batch)[mask]
    assert (theirs - bare).abs().max() > 0.05, "the adapters do nothing, so that nothing is compared"
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
    return backbone, batch, ours


CASES = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "a pattern": {"target_modules": r".*language_model.*\.(q_proj|down_proj)"},
    "the vision tower": {"target_modules": ["qkv", "q_proj"]},
    "all layers": {"target_modules": "all-linear"},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings alone": {"target_modules": ["embed_tokens"]},
    "output layer": {"target_modules": ["lm_head", "q_proj"]},
    "both ends": {"target_modules": ["embed_tokens", "lm_head"]},
    "saved embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved output layer": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "saved both": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "saved projector": {"target_modules": ["q_proj"], "modules_to_save": ["merger"]},
    "tied by wish": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "saved and tied by wish": {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True,
    },
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 40, 41]}},
    "rank-stabilised": {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    "weight-decomposed": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "weight-decomposed embeddings": {"target_modules": ["embed_tokens"], "use_dora": True},
    "ranks by layer": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {r".*layers\.1\.self_attn\.q_proj": 2}, "alpha_pattern": {"v_proj": 32},
    },
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "biases": {"target_modules": ["q_proj", "v_proj"], "bias": "lora_only"},
    "a bias of its own": {"target_modules": ["q_proj", "v_proj"], "lora_bias": True},
    "without the first": {"target_modules": ["q_proj"], "exclude_modules": r".*layers\.0\..*"},
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_peft(bases, case, tied, samples, tmp_path):
    base = bases[QWEN2, tied]
    adapt(QWEN2, base, tmp_path / "adapter", **CASES[case])
    backbone, batch, expected = compare(QWEN2, base, tmp_path / "adapter", samples)
    backbone.export(tmp_path / "merged")
    with torch.no_grad():
        again = Backbone(str(tmp_path / "merged")).eval().logits(batch)[batch.attention_mask.bool()]
    assert torch.equal(again, expected)


@pytest.mark.parametrize("case", ["embeddings", "saved embeddings", "the vision tower"])
def test_the_other_family_too(bases, case, samples, tmp_path):
    base = bases[QWEN25, True]
    adapt(QWEN25, base, tmp_path / "adapter", **CASES[case])
    compare(QWEN25, base, tmp_path / "adapter", samples)


def age(adapter, former, **settings):
    """A copy of adapters as they were saved before transformers 4.52."""
    shutil.copytree(adapter, former)
    weights = {}
    for name, value in load_file(adapter / "adapter_model.safetensors").items():
        for new, old in FORMER:
            name = name.replace(new, old)
        weights[name] = value
    save_file(weights, former / "adapter_model.safetensors")
    path = former / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("attention", {}),
        ("embeddings", {}),
        ("saved embeddings", {}),
        ("saved embeddings", {"modules_to_save": ["model.embed_tokens"]}),
        ("saved projector", {"modules_to_save": ["visual.merger"]}),
        ("the vision tower", {}),
        ("some tokens", {}),
        ("attention", {"target_modules": r"^(model\.layers.*\.(q_proj|v_proj))$"}),
        ("the vision tower", {"target_modules": r"^(visual.*qkv|model\.layers.*q_proj)$"}),
        ("ranks by layer", {"rank_pattern": {"model.layers.1.self_attn.q_proj": 2},
                            "alpha_pattern": {"^model.layers.*v_proj": 32}}),
    ],
)  # fmt: skip
def test_names_from_before_transformers_4_52(bases, case, settings, samples, tmp_path):
    base = bases[QWEN2, True]
    adapt(QWEN2, base, tmp_path / "adapter", **CASES[case])
    age(tmp_path / "adapter", tmp_path / "former", **settings)
    compare(QWEN2, base, tmp_path / "former", samples, reference=tmp_path / "adapter")


def test_patterns_of_older_training_frameworks(bases, samples, tmp_path):
    """They name every module below the language model, of which PEFT itself can adapt the linear ones alone."""
    base = bases[QWEN2, True]
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapt(QWEN2, base, tmp_path / "adapter", target_modules=every)
    age(tmp_path / "adapter", tmp_path / "former", target_modules=SWIFT)
    compare(QWEN2, base, tmp_path / "former", samples, reference=tmp_path / "adapter")


def test_what_adapters_were_worked_into_can_be_trained_whole(bases, tmp_path):
    base = bases[QWEN2, True]
    adapt(QWEN2, base, tmp_path / "adapter", **CASES["attention"])
    trained = [{n for n, p in Backbone(str(f)).named_parameters() if p.requires_grad}
               for f in (base, tmp_path / "adapter")]  # fmt: skip
    assert trained[0] == trained[1]
    assert any("q_proj" in name for name in trained[0])


def test_an_adapter_brings_the_picture_settings_that_it_was_trained_with(bases, tmp_path):
    base, adapter = bases[QWEN2, True], tmp_path / "adapter"
    adapt(QWEN2, base, adapter, **CASES["attention"])
    assert Backbone(str(adapter)).processor.max_pixels == 19_600
    settings = json.loads((base / "preprocessor_config.json").read_text())
    settings["size"]["longest_edge"] = 7840
    (adapter / "preprocessor_config.json").write_text(json.dumps(settings))
    assert Backbone(str(adapter)).processor.max_pixels == 7840


def test_an_adapter_brings_the_chat_template_that_it_was_trained_with(bases, tmp_path):
    base, adapter = bases[QWEN2, True], tmp_path / "adapter"
    adapt(QWEN2, base, adapter, **CASES["attention"])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, adapter)
    template = (adapter / "chat_template.jinja").read_text()
    (adapter / "chat_template.jinja").write_text("Hello. " + template)
    plain, adapted = (Backbone(str(folder)).processor.chat("Who?") for folder in (base, adapter))
    assert adapted == "Hello. " + plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "sets alora_invocation_tokens, which cannot be merged"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "sets megatron_config, which cannot be merged"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "sets layer_replication"),
        ({"r": "4"}, "r: '4' must be a whole number"),
        ({"r": 10**9}, "says rank 1000000000 of .*q_proj, and its weights have 4"),
        ({"lora_alpha": None}, "lora_alpha: None must be a number"),
        ({"rank_pattern": [1]}, "rank_pattern: .* is no mapping"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern: q_proj: 'x' must be a number"),
        ({"target_modules": "("}, "adapter_config.json cannot be used"),
        ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, "lacks weights of 2 layers that .* targets .*k_proj"),
        ({"target_modules": 7}, "adapter_config.json cannot be used|cannot be put"),
        ({"modules_to_save": ["embed_tokens"]}, "cannot be put on its model"),
        ({"modules_to_save": 7}, "adapter_config.json cannot be used"),
        ({"init_lora_weights": "no such way"}, "cannot be put on its model|cannot be used"),
        ({"base_model_name_or_path": ["x"]}, "names no model"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(bases, settings, message, tmp_path):
    adapt(QWEN2, bases[QWEN2, True], tmp_path / "adapter", **CASES["attention"])
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ConfigError, match=message) as caught:
        Backbone(str(tmp_path / "adapter"))
    assert len(str(caught.value)) < 800  # and no dump of modules


@pytest.mark.parametrize("content", ["[]", '"LORA"', "null", "[" * 5000])
def test_settings_that_are_none(bases, content, tmp_path):
    adapt(QWEN2, bases[QWEN2, True], tmp_path / "adapter", **CASES["attention"])
    (tmp_path / "adapter" / "adapter_config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"adapter_config\.json cannot be read"):
        Backbone(str(tmp_path / "adapter"))


def test_adapters_on_adapters(bases, tmp_path):
    adapt(QWEN2, bases[QWEN2, True], tmp_path / "adapter", **CASES["attention"])
    shutil.copytree(tmp_path / "adapter", tmp_path / "second")
    path = tmp_path / "second" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(tmp_path / "adapter")}))
    with pytest.raises(ConfigError, match="which holds adapters, too; merge those first"):
        Backbone(str(tmp_path / "second"))


@pytest.mark.parametrize("what", ["cut", "of another shape", "half of them"])
def test_weights_that_are_not_whole(bases, what, tmp_path):
    adapt(QWEN2, bases[QWEN2, True], tmp_path / "adapter", **CASES["attention"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "of another shape":
        save_file({n: v[:, :8].contiguous() if "lora_A" in n else v for n, v in weights.items()}, path)
    else:
        save_file({n: v for n, v in weights.items() if "lora_A" in n}, path)
    with pytest.raises(ConfigError, match=r"cut off|belongs to another model|weights are missing"):
        Backbone(str(tmp_path / "adapter"))
