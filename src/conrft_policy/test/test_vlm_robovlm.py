"""RoboVLM's checkpoints: read as the authors' own code reads them, and refused with every name that does not fit.

The files in data/ were made with the authors' model classes on the releases of transformers that they name (4.37.2 for
Kosmos-2, 4.44.0 for PaliGemma): a tiny checkpoint under their names, frames of two cameras, and what their policy head
is given for each frame and the instruction "pick up the banana", with and without the hand's camera.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

import tiny_models

from conrft_policy import backbone_cli
from conrft_policy.backbone import BackboneError, load_backbone
from conrft_policy.vlm.config import RoboVlmConfig
from conrft_policy.vlm.robovlm_checkpoint import import_robovlm, sort_tensors

DATA = Path(__file__).parent / "data"
MODELS = ["kosmos2", "paligemma"]
INSTRUCTION = "pick up the banana"
CAMERAS = [{"camera": "side", "height": 32, "width": 32}, {"camera": "wrist", "height": 24, "width": 40}]
DENSE = "model.backbone.image_to_text_projection.dense.weight"


def official(name: str, part: str) -> dict[str, torch.Tensor]:
    """The tensors of data/robovlm_<name>.safetensors under ``part``."""
    tensors = load_file(DATA / f"robovlm_{name}.safetensors")
    return {key.removeprefix(f"{part}/"): value for key, value in tensors.items() if key.startswith(f"{part}/")}


def state(name: str) -> dict[str, torch.Tensor]:
    """A published checkpoint's tensors, the language model's head tied to its word embeddings included."""
    tensors = official(name, "checkpoint")
    (words,) = (key for key in tensors if key.endswith("model.embed_tokens.weight"))
    return {**tensors, words.replace("model.embed_tokens.weight", "lm_head.weight"): tensors[words]}


@pytest.fixture
def base(tmp_path: Path):
    """The folder of the model that a checkpoint was trained from: configuration and processor, no weights."""

    def base(name: str = "kosmos2") -> Path:
        folder = tmp_path / f"base-{name}"
        processor = tiny_models.kosmos2_processor() if name == "kosmos2" else tiny_models.paligemma_processor()
        processor.save_pretrained(folder)
        with safe_open(DATA / f"robovlm_{name}.safetensors", framework="pt") as file:
            (folder / "config.json").write_text(file.metadata()["config"])
        return folder

    return base


def config(base: Path, **keys: Any) -> RoboVlmConfig:
    return RoboVlmConfig.model_validate({"model": str(base), "cameras": CAMERAS, "history": 1, **keys})


def checkpoint(path: Path, tensors: dict[str, torch.Tensor], **more: Any) -> Path:
    torch.save({"state_dict": tensors, **more}, path)
    return path


@pytest.mark.parametrize(("cameras", "expected"), [(CAMERAS[:1], "embedding_one"), (CAMERAS, "embedding_two")])
@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_those_of_the_authors_code(
    base, tmp_path: Path, name: str, cameras: list[dict[str, Any]], expected: str
) -> None:
    file = checkpoint(tmp_path / "published.pt", state(name))
    import_robovlm(file, tmp_path / "out", config(base(name), cameras=cameras))
    truth = official(name, "expected")
    frames = {camera["camera"]: truth[camera["camera"]].numpy() for camera in cameras}
    embeddings = load_backbone(tmp_path / "out", INSTRUCTION).encode_episode(frames)
    np.testing.assert_allclose(embeddings, truth[expected].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["", "module.", "_forward_module.", "_forward_module.module."])
def test_what_training_frameworks_put_before_a_name_does_not_matter(wrapper: str) -> None:
    bare = {name.removeprefix("model."): tensor for name, tensor in state("kosmos2").items()}
    for prefix in (wrapper, f"{wrapper}model."):
        contents = sort_tensors({prefix + name: tensor for name, tensor in bare.items()})
        assert {f"model.backbone.{name}" for name in contents.model} == {
            name for name in official("kosmos2", "checkpoint") if name.startswith("model.backbone.")
        }
        assert contents.action_token is not None
        assert contents.left_out == {"act_head.": 1, "lm_head.": 1}
        assert contents.unknown == []


def test_safetensors_and_training_state_beside_the_tensors_are_taken(base, tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "a.ckpt", state("kosmos2"), epoch=3, optimizer_states=[{"lr": 1e-4}])
    save_file({name: tensor.clone() for name, tensor in state("kosmos2").items()}, tmp_path / "b.safetensors")
    folders = [tmp_path / "a", tmp_path / "b"]
    model = base()
    for file, folder in zip((plain, tmp_path / "b.safetensors"), folders, strict=True):
        import_robovlm(file, folder, config(model))
    assert len({load_backbone(folder, INSTRUCTION).fingerprint for folder in folders}) == 1


def test_missing_unexpected_and_misshaped_tensors_are_all_named(base, tmp_path: Path) -> None:
    tensors = state("kosmos2")
    tensors["model.backbone.vision_model.other"] = tensors.pop(DENSE)
    tensors["model.extra.weight"] = torch.zeros(1)
    tensors["model.backbone.text_model.model.layer_norm.bias"] = torch.zeros(5)
    file = checkpoint(tmp_path / "wrong.pt", tensors)
    with pytest.raises(BackboneError) as caught:
        import_robovlm(file, tmp_path / "out", config(base()))
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "missing: image_to_text_projection.dense.weight" in message
    assert "unexpected: model.extra.weight, vision_model.other" in message
    assert "of another shape:" in message
    assert "text_model.model.layer_norm.bias" in message
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_an_action_token_is_refused(base, tmp_path: Path) -> None:
    tensors = state("kosmos2")
    del tensors["model.action_token"]
    with pytest.raises(BackboneError, match=r"'action_token' is missing, the model needs \(16,\)"):
        import_robovlm(checkpoint(tmp_path / "a.pt", tensors), tmp_path / "out", config(base()))


def test_a_checkpoint_that_needs_code_to_be_run_is_refused(base, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "code.ckpt", state("kosmos2"), folder=Path("runs"))
    with pytest.raises(BackboneError, match=r"code\.ckpt: holds more than tensors.*could run code.*safetensors"):
        import_robovlm(file, tmp_path / "out", config(base()))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_cut_off_checkpoint_is_refused(base, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"cut.{suffix}"
    if suffix == "pt":
        checkpoint(file, state("kosmos2"))
    else:
        save_file({name: tensor.clone() for name, tensor in state("kosmos2").items()}, file)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(BackboneError, match=rf"cut\.{suffix}: checkpoint missing, cut off or damaged"):
        import_robovlm(file, tmp_path / "out", config(base()))


def test_nothing_half_written_is_left(base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("conrft_policy.vlm.robovlm_checkpoint.save_file", full_disk)
    file, model = checkpoint(tmp_path / "a.pt", state("kosmos2")), base()
    before = set(tmp_path.iterdir())
    with pytest.raises(OSError, match="no space left"):
        import_robovlm(file, tmp_path / "out", config(model))
    assert set(tmp_path.iterdir()) == before


def training(path: Path, **changes: Any) -> Path:
    """The part of RoboVLMs' JSON of a run that matters here."""
    head = {"type": "LSTMDecoder", "action_space": "continuous", "latent": 1, "history_type": "post"}
    values = {"model": "kosmos", "use_hand_rgb": True, "use_vision_resampler": False, "act_head": head}
    path.write_text(json.dumps({**values, **{key: value for key, value in changes.items() if key != "act_head"}}))
    if "act_head" in changes:
        path.write_text(json.dumps({**values, "act_head": {**head, **changes["act_head"]}}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_hand_rgb": False}, "use_hand_rgb is False, needed is True"),
        ({"use_vision_resampler": True}, "use_vision_resampler is True"),
        ({"act_head": {"history_type": "pre"}}, "act_head.history_type is 'pre', needed is 'post'"),
        ({"act_head": {"action_space": "discrete"}}, "act_head.action_space is 'discrete'"),
        ({"act_head": {"latent": 4}}, "act_head.latent is 4, needed is 1"),
    ],
)
def test_a_run_that_was_trained_otherwise_is_refused(
    base, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = checkpoint(tmp_path / "a.pt", state("kosmos2"))
    run = training(tmp_path / "run.json", **changes)
    with pytest.raises(BackboneError, match=rf"run\.json: {message}"):
        import_robovlm(file, tmp_path / "out", config(base()), training=run)


def conrft(*words: object) -> int:
    parser = argparse.ArgumentParser()
    backbone_cli.register(parser.add_subparsers())
    args = parser.parse_args(["backbone", *map(str, words)])
    return int(args.run(args))


def test_the_command_reports_what_it_took(base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = checkpoint(tmp_path / "a.pt", state("kosmos2")), training(tmp_path / "run.json")
    words = ("import", "robovlm", file, tmp_path / "out", "--base", base(), "--camera", "side=32")
    more = ("--camera", "wrist=24x40", "--training", run, "--history", 3, "--precision", "bfloat16")
    assert conrft(*words, *more) == 0
    printed = capsys.readouterr().out
    assert "took 93 tensors of the model (0.02 M parameters), the action token; none missing" in printed
    assert "left out: act_head.* (1), lm_head.* (1)" in printed
    backbone = load_backbone(tmp_path / "out", INSTRUCTION)
    assert backbone.image_sizes == {"side": (32, 32), "wrist": (24, 40)}
    assert (backbone.history, backbone.embedding_dim, backbone.precision) == (3, 48, "bfloat16")
    assert conrft("info", tmp_path / "out", "--task", INSTRUCTION, "--ticks", 1) == 0
    assert backbone.fingerprint in capsys.readouterr().out
    assert conrft(*words) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_camera_without_a_size_is_refused(base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conrft("import", "robovlm", tmp_path / "a.pt", tmp_path / "out", "--base", base(), "--camera", "side") == 2
    assert "cameras.0.height" in capsys.readouterr().err
