"""Vision-language models behind the seam: the true classes of transformers, tiny, loaded as a user loads them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

import tiny_models
from tiny_models import WIDTH

from conrft_policy.backbone import BackboneError, load_backbone
from conrft_policy.vlm.backbone import VlmBackbone
from conrft_policy.vlm.config import resolve_precision

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor

TASK = "pick_banana"
CAMERAS = [{"camera": "side", "height": 32, "width": 32}, {"camera": "wrist", "height": 24, "width": 40}]
KINDS = [
    ("robovlm", "kosmos2"),
    ("robovlm", "paligemma"),
    ("transformers", "paligemma"),
    ("transformers", "llava"),
    ("transformers", "qwen"),
    ("transformers", "smolvlm"),
]
STEPS = 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """Folder of a model, saved once."""
    folder = tmp_path_factory.mktemp("models")

    def save(name: str) -> Path:
        return folder / name if (folder / name).exists() else tiny_models.SAVE[name](folder / name)

    return save


@pytest.fixture
def make(saved, tmp_path: Path):
    """Makes a backbone's folder with a copy of a model in it; keys are those of its section in config.json."""

    def make(architecture: str = "robovlm", kind: str = "kosmos2", precision: str = "auto", **section: Any) -> Path:
        folder = tmp_path / f"{architecture}-{kind}"
        if not folder.exists():
            shutil.copytree(saved(kind), folder / "model")
        if architecture == "robovlm" and "action_token" not in section:
            token = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
            save_file({"action_token": token}, folder / "token.safetensors")
            section["action_token"] = "token.safetensors"
        defaults = {"model": "model", "cameras": CAMERAS, "instructions": {TASK: "pick up the banana"}}
        config = {"architecture": architecture, "precision": precision, architecture: {**defaults, **section}}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.fixture(scope="module")
def episode() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = {camera["camera"]: (camera["height"], camera["width"]) for camera in CAMERAS}
    return {name: generator.integers(0, 256, (STEPS, *size, 3), dtype=np.uint8) for name, size in sizes.items()}


def frame(episode: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {camera: images[index] for camera, images in episode.items()}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("architecture", "model"), KINDS)
def test_stream_gives_the_numbers_of_the_whole_episode(make, episode, architecture: str, model: str) -> None:
    backbone = load_backbone(make(architecture, model), TASK)
    whole = backbone.encode_episode(episode)
    stream = backbone.stream()
    steps = np.stack([stream.step(frame(episode, index)) for index in range(STEPS)])
    assert whole.shape == (STEPS, backbone.embedding_dim) == (STEPS, 2 * WIDTH)
    assert whole.dtype == steps.dtype == np.float32
    np.testing.assert_allclose(steps, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("architecture", "model"), KINDS)
def test_every_camera_and_the_instruction_change_the_embedding(make, episode, architecture: str, model: str) -> None:
    backbone = load_backbone(make(architecture, model), TASK)
    now = backbone.stream().step(frame(episode, 0))
    for camera in backbone.cameras:
        other = {**frame(episode, 0), camera: episode[camera][1]}
        assert np.abs(backbone.stream().step(other) - now).max() > 1e-4, camera
    told = load_backbone(make(architecture, model), "lift the spoon")
    assert np.abs(told.stream().step(frame(episode, 0)) - now).max() > 1e-4


@pytest.mark.parametrize(("architecture", "model"), KINDS)
def test_one_camera_will_do(make, episode, architecture: str, model: str) -> None:
    backbone = load_backbone(make(architecture, model, cameras=CAMERAS[:1], history=1), TASK)
    assert backbone.stream().step(frame(episode, 0)).shape == (WIDTH,)


def test_an_embedding_is_what_was_read_of_the_last_frames_oldest_first(make, episode) -> None:
    single = load_backbone(make(history=1), TASK).encode_episode(episode)
    three = load_backbone(make(history=3), TASK).encode_episode(episode)
    np.testing.assert_array_equal(three[5], single[3:6].ravel())
    np.testing.assert_array_equal(three[1], single[[0, 0, 1]].ravel())


def test_every_frame_is_read_once(make, episode, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(make(history=3), TASK)
    stream = backbone.stream()
    read: list[int] = []
    inner = VlmBackbone._read
    monkeypatch.setattr(
        VlmBackbone, "_read", lambda self, images: read.append(len(images["side"])) or inner(self, images)
    )
    backbone.encode_episode(episode)
    assert sum(read) == STEPS
    for index in range(4):
        stream.step(frame(episode, index))
    assert read[-4:] == [1, 1, 1, 1]


def test_reset_forgets_the_last_episode(make, episode) -> None:
    stream = load_backbone(make(), TASK).stream()
    first = stream.step(frame(episode, 0))
    stream.step(frame(episode, 1))
    stream.reset()
    np.testing.assert_array_equal(stream.step(frame(episode, 0)), first)


def test_an_empty_episode_has_no_embeddings(make, episode) -> None:
    backbone = load_backbone(make(), TASK)
    assert backbone.encode_episode({camera: images[:0] for camera, images in episode.items()}).shape == (0, 2 * WIDTH)


def test_what_a_learner_asks_for_leaves_the_weights_on_disk(make, episode) -> None:
    backbone = load_backbone(make(), TASK)
    assert backbone.fingerprint and backbone.embedding_dim and backbone.parameters > 10_000
    assert not backbone.loaded
    backbone.encode_episode(episode)
    assert backbone.loaded


def test_a_stream_has_its_weights_before_the_first_tick(make) -> None:
    backbone = load_backbone(make(), TASK)
    backbone.stream()
    assert backbone.loaded


@pytest.mark.parametrize(("architecture", "model"), KINDS)
def test_weights_are_frozen(make, architecture: str, model: str) -> None:
    backbone = load_backbone(make(architecture, model), TASK)
    backbone.stream()
    network = backbone._reader._model
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_the_fingerprint_covers_all_that_changes_an_embedding(make) -> None:
    def fingerprint(task: str = TASK, dtype: torch.dtype | None = None, **section: Any) -> str:
        return load_backbone(make(**section), task, dtype=dtype).fingerprint

    base = fingerprint()
    others = [
        fingerprint(task="lift the spoon"),
        fingerprint(dtype=torch.bfloat16),
        fingerprint(precision="float16"),
        fingerprint(history=3),
        fingerprint(prompt="Robot, {instruction}!"),
        fingerprint(cameras=CAMERAS[:1]),
        fingerprint(cameras=CAMERAS[::-1]),
        fingerprint(action_token=None),
    ]
    assert len({base, *others}) == 9
    assert fingerprint() == base


def test_the_fingerprint_covers_weights_action_token_and_processor(make) -> None:
    folder = make()
    base = load_backbone(folder, TASK).fingerprint
    for file, name in ((folder / "model" / "model.safetensors", None), (folder / "token.safetensors", "action_token")):
        tensors = load_file(file)
        tensors[name or sorted(tensors)[3]].view(-1)[0] += 1e-3
        save_file(tensors, file, metadata={"format": "pt"})
        changed = load_backbone(folder, TASK).fingerprint
        assert changed != base
        base = changed
    settings = folder / "model" / "processor_config.json"
    settings.write_text(settings.read_text().replace("0.48145466", "0.5"))
    assert load_backbone(folder, TASK).fingerprint != base


def test_the_fingerprint_is_that_of_the_model_wherever_it_lies(make, tmp_path: Path) -> None:
    folder = make()
    base = load_backbone(folder, TASK).fingerprint
    moved = (folder / "model").rename(tmp_path / "elsewhere")
    assert load_backbone(make(model=str(moved)), TASK).fingerprint == base
    tensors = load_file(moved / "model.safetensors")
    (moved / "model.safetensors").unlink()
    files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        save_file(part, moved / file, metadata={"format": "pt"})
    (moved / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    backbone = load_backbone(make(model=str(moved)), TASK)
    assert backbone.fingerprint == base
    backbone.stream()


@pytest.mark.parametrize(("architecture", "model"), KINDS)
def test_bfloat16_points_the_same_way(make, episode, architecture: str, model: str) -> None:
    exact = load_backbone(make(architecture, model), TASK).stream().step(frame(episode, 0))
    coarse = load_backbone(make(architecture, model, precision="bfloat16"), TASK)
    embedding = coarse.stream().step(frame(episode, 0))
    assert coarse.precision == "bfloat16"
    assert {parameter.dtype for parameter in coarse._reader._model.parameters()} == {torch.bfloat16}
    assert embedding.dtype == np.float32
    assert cosine(exact, embedding) > 0.99


def test_auto_is_bfloat16_where_cuda_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve_precision("auto", cuda, None) == torch.bfloat16
    assert resolve_precision("auto", cpu, None) == torch.float32
    assert resolve_precision("float32", cuda, None) == torch.float32
    assert resolve_precision("auto", cuda, torch.float16) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert resolve_precision("auto", cuda, None) == torch.float32


def test_an_unlearned_action_token_is_said_loudly(make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_backbone(make(action_token=None), TASK)
    assert "no action token was learned" in caplog.text


def test_a_hub_id_is_served_from_the_cache_without_a_network(make, saved, tmp_path: Path, monkeypatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--makers--kosmos-tiny"
    shutil.copytree(saved("kosmos2"), repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    local = load_backbone(make(), TASK).fingerprint
    assert load_backbone(make(model="makers/kosmos-tiny"), TASK).fingerprint == local
    with pytest.raises(BackboneError, match=r"'makers/unknown': no folder .*not in the hub's cache.*downloaded"):
        load_backbone(make(model="makers/unknown"), TASK)


def test_one_word_that_names_no_task_is_no_instruction(make) -> None:
    with pytest.raises(BackboneError, match=r"no instruction for 'hang_knot' \(stored: pick_banana"):
        load_backbone(make(), "hang_knot")
    assert load_backbone(make(), "hang the knot").instruction == "hang the knot"


def test_a_wrong_image_size_names_the_camera(make, episode) -> None:
    stream = load_backbone(make(), TASK).stream()
    with pytest.raises(BackboneError, match=r"camera 'side'.*\(24, 40, 3\) uint8.*\(32, 32, 3\)"):
        stream.step({"side": episode["wrist"][0], "wrist": episode["wrist"][0]})


def test_a_missing_camera_is_named(make, episode) -> None:
    with pytest.raises(BackboneError, match=r"camera 'wrist'.*\['side'\]"):
        load_backbone(make(), TASK).encode_episode({"side": episode["side"]})


def test_cameras_of_different_length_are_refused(make, episode) -> None:
    with pytest.raises(BackboneError, match=r"camera 'wrist': 3 frames, 'side' has another number"):
        load_backbone(make(), TASK).encode_episode({"side": episode["side"], "wrist": episode["wrist"][:3]})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"colour": "red"}, r"robovlm: colour is not a known key"),
        ({"history": 0}, r"robovlm: history: .*greater than or equal to 1"),
        ({"prompt": "go"}, r"robovlm: prompt: .*\{instruction\} exactly once"),
        ({"cameras": [*CAMERAS, *CAMERAS[:1]]}, r"robovlm: cameras: .*at most 2"),
        ({"cameras": CAMERAS[:1] * 2}, r"robovlm: cameras: .*twice"),
        ({"precision": "int8"}, r"precision 'int8' is none of \['auto', 'float32'"),
    ],
)
def test_a_wrong_config_names_file_and_key(make, section: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=rf"config\.json: .*{message}"):
        load_backbone(make(**section), TASK)


def test_a_model_without_an_action_token_is_refused_for_robovlm(make) -> None:
    with pytest.raises(
        BackboneError, match=r"model type 'llava' has no action token; known: \['kosmos-2', 'paligemma'"
    ):
        load_backbone(make("robovlm", "llava"), TASK)


def test_a_model_that_reads_no_images_is_refused(make) -> None:
    folder = make("transformers", "llava")
    transformers = tiny_models.transformers
    config = transformers.LlamaConfig(vocab_size=300, num_key_value_heads=2, **tiny_models.TEXT)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    with pytest.raises(BackboneError, match=r"model type 'llama' is not a decoder that continues images and text"):
        load_backbone(folder, TASK)


def test_a_model_type_that_nobody_knows_is_refused(make) -> None:
    folder = make()
    (folder / "model" / "config.json").write_text('{"model_type": "kosmos-9"}')
    with pytest.raises(BackboneError, match=r"model: no model that transformers knows: .*kosmos-9"):
        load_backbone(folder, TASK)


def test_more_images_than_a_model_takes_are_refused_before_the_first_tick(make) -> None:
    backbone = load_backbone(make("transformers", "kosmos2"), TASK)
    with pytest.raises(BackboneError, match="cannot read 2 images and an instruction"):
        backbone.stream()


def test_cut_off_weights_are_refused(make) -> None:
    folder = make()
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"model\.safetensors: weights missing, cut off or damaged"):
        load_backbone(folder, TASK)


def test_missing_weights_are_refused(make) -> None:
    folder = make()
    (folder / "model" / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"model\.safetensors: weights missing, cut off or damaged"):
        load_backbone(folder, TASK)


def test_weights_that_do_not_fit_are_listed_by_name(make) -> None:
    folder = make()
    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["other.weight"] = tensors.pop("image_to_text_projection.dense.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    backbone = load_backbone(folder, TASK)
    with pytest.raises(
        BackboneError, match=r"missing: image_to_text_projection\.dense\.weight; unexpected: other\.weight"
    ):
        backbone.stream()


def test_an_action_token_of_another_width_is_refused(make) -> None:
    folder = make()
    save_file({"action_token": torch.zeros(WIDTH + 1)}, folder / "token.safetensors")
    with pytest.raises(BackboneError, match=r"token\.safetensors: holds \{'action_token': \(33,\)\}.*\(32,\)"):
        load_backbone(folder, TASK)
