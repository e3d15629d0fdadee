"""The table before a training counts what there is, by part."""

from __future__ import annotations

import torch

from data_modules import CoTSFTDataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.parameter_table import parameter_table


def cells(lines):
    rows = [line.split() for line in lines]
    assert rows[0] == ["part", "parameters", "trained", "weights", "gradients", "moments"]
    return {row[0]: [int(row[1].replace(",", "")), int(row[2].replace(",", "")), *row[3::2]] for row in rows[1:]}


def mib(size):
    return f"{size / 2**20:,.1f}"


def test_adapters_and_single_tokens():
    backbone = Backbone("tiny", lora=LoRASettings(r=4, targets=("q_proj",), tokens=(3, 40)))
    trained = [p for p in backbone.parameters() if p.requires_grad]
    found = cells(parameter_table(backbone, [torch.optim.AdamW(trained)]))
    text = backbone.model.config.text_config
    width, layers = text.hidden_size, text.num_hidden_layers
    own = layers * (4 * width + width * 4) + 2 * width  # two factors of rank 4 for each layer's queries, and two tokens
    assert found["adapters"] == [own, own, mib(4 * own), mib(4 * own), mib(8 * own)]
    embeddings = text.vocab_size * width  # shared with the output layer
    assert found["embeddings"] == [embeddings, 0, mib(4 * embeddings), "0.0", "0.0"]
    assert found["vision"][1] == found["merger"][1] == found["language"][1] == 0
    whole = sum(p.numel() for p in backbone.parameters())
    assert found["all"] == [whole, own, mib(4 * whole), mib(4 * own), mib(8 * own)]
    assert whole == sum(row[0] for part, row in found.items() if part != "all")


def test_other_types_and_optimizers():
    backbone = Backbone("tiny", dtype="bfloat16", freeze_language=True, freeze_projector=False)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    num = sum(p.numel() for p in trained)
    assert cells(parameter_table(backbone, [torch.optim.AdamW(trained)]))["all"][1:4:2] == [num, mib(2 * num)]

    class Adam8bit(torch.optim.SGD):
        """A name like that of an optimizer with 8 bits."""

    assert cells(parameter_table(backbone, [Adam8bit(trained)]))["merger"][4] == mib(2 * num)
    lines = parameter_table(backbone, [torch.optim.SGD(trained)])
    assert lines[2].split()[0] == "merger"
    assert lines[2].split()[-1] == "?"  # not known before the first step


def test_it_is_printed_before_a_training(fit, tiny, adamw, two, caplog):
    with caplog.at_level("INFO"):
        fit(CoTSFTModule(tiny(lora=LoRASettings(r=2)), adamw(1e-3), export=False), CoTSFTDataModule(two), 1)
    (table,) = [record.getMessage() for record in caplog.records if "gradients" in record.getMessage()]
    assert "adapters" in table
