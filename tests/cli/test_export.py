"""``kvg export``: from each kind of checkpoint to a folder that plain transformers reads, checked, with a card."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from huggingface_hub import constants
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2VLForConditionalGeneration

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.cli.kvg import main

PLAIN = Qwen2VLForConditionalGeneration
LORA = LoRASettings(r=2, alpha=32)
IDS = torch.tensor([[5, 9, 200, 31, 7]])
PROJECTOR = "visual.merger.mlp.0.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    Backbone("tiny").export(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\nA base.\n")
    return folder


def trained(base, folder, lora=None, sharded=False):
    """A run whose language model, or whose adapters, are others than those of its base; returns the checkpoint."""
    backbone = Backbone(str(base), lora=lora)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    version = folder / "lightning_logs/version_0"
    path = version / "checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    given = lora and {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(lora).items()}
    init = {"checkpoint": str(base), "dtype": "float32", "lora": given}
    setting = {"class_path": "kvg.backbones.backbone.Backbone", "init_args": init}
    stage = {"class_path": "kvg.modules.cot_sft.CoTSFTModule", "init_args": {"backbone": setting}}
    config = {"seed_everything": 7, "model": stage, "data": {"init_args": {"train": str(folder / "gone"), "seed": 11}}}
    (version / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    about = {"global_step": 41, "kvg_mode": "think"}
    if sharded:
        path.mkdir()
        dcp.save({"state_dict": state}, checkpoint_id=path, no_dist=True)
        torch.save(about, path / "meta.pt")
    else:
        torch.save({**about, "state_dict": state}, path)
    return path, backbone


def logits(folder):
    with torch.no_grad():
        return PLAIN.from_pretrained(folder).eval()(input_ids=IDS).logits


def exported(checkpoint, out, *more):
    assert main(["export", str(checkpoint), "--out", str(out), *map(str, more)]) == 0
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("sharded", [False, True], ids=["file", "folder"])
def test_a_training_s_checkpoint(sharded, base, tmp_path, capsys):
    path, backbone = trained(base, tmp_path / "run", sharded=sharded)
    out = tmp_path / "out"
    exported(path, out)
    assert "0 layers merged" in capsys.readouterr().out
    backbone.model.save_pretrained(tmp_path / "plain")
    assert torch.equal(logits(out), logits(tmp_path / "plain"))
    assert not torch.equal(logits(out), logits(base))
    again = Backbone(str(out))
    assert again.trained_mode == "think"
    assert (out / "training.yaml").read_text() == (path.parent.parent / "config.yaml").read_text()


@pytest.mark.parametrize("sharded", [False, True], ids=["file", "folder"])
def test_adapters_merged_are_those_of_peft(sharded, base, tmp_path, capsys):
    path, _ = trained(base, tmp_path / "run", LORA, sharded)
    merged = exported(path, tmp_path / "merged")
    assert "14 layers merged" in capsys.readouterr().out
    assert main(["export", str(path), "--out", str(tmp_path / "apart"), "--adapter"]) == 0
    peft = PeftModel.from_pretrained(PLAIN.from_pretrained(base), tmp_path / "apart").merge_and_unload()
    peft.save_pretrained(tmp_path / "peft")
    assert torch.equal(logits(tmp_path / "merged"), logits(tmp_path / "peft"))
    before = load_file(base / "model.safetensors")
    assert merged.keys() == before.keys()
    assert sum(not torch.equal(value, before[name]) for name, value in merged.items()) == 14
    assert exported(tmp_path / "apart", tmp_path / "of-peft").keys() == merged.keys()
    torch.testing.assert_close(logits(tmp_path / "of-peft"), logits(tmp_path / "peft"))


OTHERS = {
    "rslora": (LoRASettings(r=4, rslora=True), 14, 0, 14),
    "dora": (LoRASettings(r=4, dora=True, targets=("q_proj", "down_proj")), 4, 0, 4),
    "tokens": (LoRASettings(r=4, targets=("q_proj",), tokens=(5, 200)), 2, 1, 3),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_adapters_merged_are_those_of_peft(kind, base, tmp_path, capsys):
    """From a checkpoint that holds what was trained alone, as those of a training do."""
    lora, layers, whole, moved = OTHERS[kind]
    path, backbone = trained(base, tmp_path / "run", lora)
    content = torch.load(path, weights_only=True)
    own = {f"backbone.{name}" for name, p in backbone.named_parameters(remove_duplicate=False) if p.requires_grad}
    content["state_dict"] = {name: value for name, value in content["state_dict"].items() if name in own}
    torch.save(content, path)
    merged = exported(path, tmp_path / "merged")
    assert f"{layers} layers merged, {whole} tensors trained" in capsys.readouterr().out
    assert main(["export", str(path), "--out", str(tmp_path / "apart"), "--adapter"]) == 0
    peft = PeftModel.from_pretrained(PLAIN.from_pretrained(base), tmp_path / "apart").merge_and_unload()
    peft.save_pretrained(tmp_path / "peft")
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(tmp_path / "peft"), atol=1e-5, rtol=1e-5)
    before = load_file(base / "model.safetensors")
    assert sum(not torch.equal(value, before[name]) for name, value in merged.items()) == moved


def test_a_tower_that_changed_is_refused(base, tmp_path, capsys):
    """Its weights were frozen, so the base is another one, or the checkpoint is damaged."""
    path, _ = trained(base, tmp_path / "run", LORA)
    content = torch.load(path, weights_only=True)
    content["state_dict"][f"backbone.model.model.{PROJECTOR}"] += 1e-3
    torch.save(content, path)
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    assert f"model.{PROJECTOR} was not trained, and differs from its base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("backbone.model.model.language_model.layers.0.mlp.up_proj.weight"), "does not fit"),
        (lambda state: state["backbone.model.model.language_model.norm.weight"].fill_(torch.nan), "NaN or infinity"),
        (lambda state: state.clear(), "holds no weights of a backbone"),
    ],
    ids=["missing", "nan", "empty"],
)
def test_damaged_checkpoints(damage, message, base, tmp_path, capsys):
    path, _ = trained(base, tmp_path / "run")
    content = torch.load(path, weights_only=True)
    damage(content["state_dict"])
    torch.save(content, path)
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_an_index_that_would_run_code_is_refused(base, tmp_path, capsys):
    path, _ = trained(base, tmp_path / "run", sharded=True)
    (path / ".metadata").write_bytes(pickle.dumps(Harmful()))
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "names builtins.print" in said.err
    assert "run\n" not in said.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--adapter"], "has no adapters"),
        (["--mode", "loud"], "is no prompt mode"),
        (["--config", "nowhere.yaml"], "does not exist"),
        (["--data", "nowhere"], "does not exist"),
        (["--figures", "nowhere"], "nowhere"),
    ],
)
def test_options_that_cannot_work(more, message, base, tmp_path, capsys):
    path, _ = trained(base, tmp_path / "run")
    assert main(["export", str(path), "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err


def test_the_card_says_how_it_was_made_and_is_asked(base, lab_shards, make_line, tmp_path):
    path, _ = trained(base, tmp_path / "run")
    data = lab_shards(tmp_path / "set", 5)
    run = tmp_path / "answers"
    run.mkdir()
    lines = [make_line(key=f"k{number}", right=number != 0) for number in range(4)]
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    exported(path, tmp_path / "out", "--data", data, "--figures", run)
    card = (tmp_path / "out/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0"  # that of the base
    assert head["library_name"] == "transformers"
    for text in (
        "Prompt mode: `think`",
        "<|object_ref_start|>{name}<|object_ref_end|>",
        "relative_1000",
        "(250,250),(750,750)",
        "step 41",
        "Seeds: run 7, data 11",
        "5 samples",
        "licences: not known 5",
        "| all | 4 | 75.0% (",
        "`training.yaml`",
    ):
        assert text in card, text


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that takes commits; yields what it was sent."""
    files: dict[str, bytes] = {}
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append(self.path)
            answer: dict = {"url": f"{url}/me/model", "repoId": "me/model"}
            if "/preupload/" in self.path:
                listed = json.loads(body)["files"]
                answer = {
                    "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in listed]
                }
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                commit = {"commitUrl": f"{url}/me/model/commit/1", "commitOid": "1", "hookOutput": ""}
                answer = {**commit, "pullRequestUrl": None, "success": True}
            self._answer(answer)

        def do_GET(self):
            self._answer({"name": "me", "id": "me/model", "siblings": [], "sha": "1", "private": True})

        def _answer(self, answer):
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    yield files, requests
    server.shutdown()


def test_nothing_is_uploaded_but_on_request(hub, base, tmp_path):
    files, requests = hub
    out = tmp_path / "out"
    exported(base, out)
    assert not requests
    exported(base, out, "--push", "me/model")
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert requests[0].endswith("/api/repos/create")


def test_a_hub_that_refuses(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert main(["export", str(base), "--out", str(tmp_path / "out"), "--push", "me/model"]) == 2
    assert "was not uploaded" in capsys.readouterr().err
    assert (tmp_path / "out/model.safetensors").is_file()


def test_a_folder_of_something_else_is_left_alone(base, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    assert main(["export", str(base), "--out", str(tmp_path / "notes")]) == 2
    assert "holds something else" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "notes")
