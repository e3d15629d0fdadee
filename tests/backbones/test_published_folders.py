"""Folders as they were published: DeepPerception (Qwen2-VL, transformers 4.4x), KARL (Qwen3-VL, 4.57), GLM-4.1V (4.53).

They are miniatures: settings, names of weights, templates and files beside them are laid out as there.
"""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.glm4v import Glm4V
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.families.qwen3_vl import Qwen3VL
from kvg.backbones.stored_weights import deferred_weights
from kvg.backbones.weight_files import former_name

GENERATION = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.0}


def untied(backbone):
    """The toy with an output layer of its own, as in models of 7B."""
    model = backbone.model
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 1.5)
    model.config.tie_word_embeddings = False
    return backbone


def write(folder, backbone, config, pictures, names, template):
    folder.mkdir()
    state = backbone.model.state_dict()
    half = len(state) // 2
    parts, index = (list(state)[:half], list(state)[half:]), {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({names(name): state[name].clone() for name in part}, folder / file, {"format": "pt"})
        index |= {names(name): file for name in part}
    size = sum(value.nbytes for value in state.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": index})
    )
    ids = backbone.model.generation_config.to_dict()
    tokens = {name: ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, content in {
        "config.json": config,
        "preprocessor_config.json": pictures,
        "generation_config.json": {**GENERATION, **tokens, "transformers_version": "4.49.0"},
        "trainer_state.json": {"global_step": 800},
    }.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "training_args.bin").write_bytes(pickle.dumps({"never": "read"}))
    tokenizer = backbone.processor.tokenizer
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    if template == "chat_template.json":
        (folder / template).write_text(json.dumps({"chat_template": tokenizer.chat_template}))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings |= {"chat_template": tokenizer.chat_template, "processor_class": "Qwen2VLProcessor"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    else:
        (folder / template).write_text(tokenizer.chat_template)
    return folder


def deepperception(folder):
    """Text settings lie flat in config.json, and the language model's layers are called ``model.layers``."""
    backbone = untied(Backbone("tiny", Qwen2VL()))
    text, vision = (part.to_dict() for part in (backbone.model.config.text_config, backbone.model.config.vision_config))
    rope = text.pop("rope_parameters")
    for name in ("layer_types", "model_type", "dtype"):
        text.pop(name, None)
    ids = {name: value for name, value in backbone.model.config.to_dict().items() if name.endswith("_token_id")}
    section = {"mrope_section": rope["mrope_section"], "rope_type": "default", "type": "default"}
    names = ("depth", "embed_dim", "hidden_size", "mlp_ratio", "num_heads", "patch_size", "spatial_merge_size")
    config = {
        **text,
        **ids,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": section,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.49.0",
        "vision_token_id": ids["image_token_id"],
        "vision_config": {
            **{name: vision[name] for name in names},
            "in_chans": 3,
            "model_type": "qwen2_vl",
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    }
    pictures = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_pixels": 3136,
        "patch_size": 14,
        "processor_class": "Qwen2VLProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"max_pixels": 12845056, "min_pixels": 3136},
        "temporal_patch_size": 2,
    }
    return backbone, write(folder, backbone, config, pictures, former_name, "chat_template.json")


def karl(folder):
    """Settings are nested, with ``rope_scaling`` of before transformers 5; the template is a file of its own."""
    backbone = untied(Backbone("tiny", Qwen3VL()))
    content = backbone.model.config.to_dict()
    rope = content["text_config"].pop("rope_parameters")
    theta, rope = rope.pop("rope_theta"), rope
    content["text_config"] |= {"rope_theta": theta, "rope_scaling": rope, "tie_word_embeddings": False}
    content |= {"architectures": ["Qwen3VLForConditionalGeneration"], "transformers_version": "4.57.1"}
    pictures = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "temporal_patch_size": 2,
    }
    (out := write(folder, backbone, content, pictures, str, "chat_template.jinja"))
    (out / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": "Qwen3VLVideoProcessor"}))
    return backbone, out


def glm(folder):
    """The share of a head that turns stands beside ``rope_scaling``; areas are those of two frames."""
    backbone = Backbone("tiny", Glm4V())
    content = backbone.model.config.to_dict()
    rope = content["text_config"].pop("rope_parameters")
    content["text_config"] |= {
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "default", "mrope_section": rope["mrope_section"]},
    }
    content["vision_config"].pop("rope_parameters")
    content |= {"architectures": ["Glm4vForConditionalGeneration"], "transformers_version": "4.53.0.dev0"}
    pictures = {
        "do_rescale": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Glm4vImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": 2,
        "patch_size": 14,
        "processor_class": "Glm4vProcessor",
        "size": {"longest_edge": 9633792, "shortest_edge": 12544},
        "temporal_patch_size": 2,
    }
    return backbone, write(folder, backbone, content, pictures, str, "chat_template.jinja")


@pytest.mark.parametrize(
    ("make", "pixels"), [(deepperception, (3136, 12845056)), (karl, (65536, 16777216)), (glm, (6272, 4816896))]
)
def test_published_folders_load_by_their_path(make, pixels, tmp_path, scenes):
    toy, folder = make(tmp_path / "published")
    loaded = Backbone(str(folder), max_pixels=160 * 160, min_pixels=32 * 32)
    assert loaded.stored_pixels == pixels
    assert loaded.trained_mode is None
    assert loaded.family.model_type == toy.family.model_type
    assert loaded.processor.tokenizer.chat_template == toy.processor.tokenizer.chat_template
    assert set(loaded.end_token_ids) == set(toy.end_token_ids)
    state = loaded.model.state_dict()
    for name, value in toy.model.state_dict().items():
        assert torch.equal(state[name], value), name
    for name, value in toy.model.named_buffers():  # the frequencies of rotary embeddings
        assert torch.equal(dict(loaded.model.named_buffers())[name], value), name
    (sample,) = scenes(1, sizes=[(84, 84)], snap_px=None)
    ids = loaded.processor.encode(sample, mode="think", target=None).input_ids
    batch = loaded.processor.collate([loaded.processor.encode(sample, mode="think", target=None)], [sample])
    assert len(ids) == batch.input_ids.shape[1]
    with torch.no_grad():
        assert torch.equal(loaded.eval().logits(batch), toy.eval().logits(batch))
    with deferred_weights():
        assert Backbone(str(folder)).stored is not None
