"""``conrft backbone import octo``: official folders in, whole backbones out, or one clear error and nothing."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from official_folders import LAYOUTS, golden_arrays, image_tokenizer, official_config, spec, write_checkpoint

from conrft_policy import backbone_cli
from conrft_policy.backbone import BackboneError, load_backbone
from conrft_policy.instructions import load_instruction, store_instruction
from conrft_policy.octo.official_checkpoint import open_checkpoint
from conrft_policy.octo.orbax_arrays import open_arrays

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("tensorstore")

TEXT = "Put the yellow banana on the green plate."
DATA = Path(__file__).parent / "data"


def conrft(*words: object) -> int:
    parser = argparse.ArgumentParser()
    backbone_cli.register(parser.add_subparsers())
    args = parser.parse_args(["backbone", *map(str, words)])
    return int(args.run(args))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "e_octo_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("official") / "octo-tiny", golden_arrays())


@pytest.fixture
def tokens(golden, tmp_path: Path) -> Path:
    """The golden tokens as a file of instructions that were encoded elsewhere."""
    path = tmp_path / "elsewhere.safetensors"
    for task, text, values in (("a", TEXT, golden["language_tokens"][0]), ("b", "Fly.", golden["language_tokens"][1])):
        store_instruction(path, task=task, instruction=text, encoder="golden", tokens=values)
    return path


def frames(golden, item: int) -> dict[str, np.ndarray]:
    return {"side": golden["image_primary"][item], "wrist": golden["image_wrist"][item]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_imported_octo_gives_the_official_embeddings(layout, golden, tokens, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "official", golden_arrays(), layout=layout)
    out = tmp_path / "deep" / "imported"
    words = ("--instruction", TEXT, "--instruction", "Fly.", "--tokens", tokens)
    assert conrft("import", "octo", folder, out, *words) == 0
    for item, text in enumerate((TEXT, "Fly.")):
        embeddings = load_backbone(out, text).encode_episode(frames(golden, item))
        np.testing.assert_allclose(embeddings[1], golden["embedding"][item], rtol=0, atol=1e-5)


def test_the_folder_is_json_and_safetensors_only(official, tokens, tmp_path: Path) -> None:
    assert conrft("import", "octo", official, tmp_path / "out", "--instruction", TEXT, "--tokens", tokens) == 0
    names = ["config.json", "dataset_statistics.json", "instructions.safetensors", "weights.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    assert json.loads((tmp_path / "out" / "dataset_statistics.json").read_text())["bridge"]


def test_the_older_line_has_neither_flag(tmp_path: Path) -> None:
    config = official_config()
    del config["model"]["repeat_task_tokens"], config["model"]["use_correct_attention"]
    config["model"]["heads"]["action"]["kwargs"] = {"pred_horizon": 4}
    octo = open_checkpoint(write_checkpoint(tmp_path / "old", golden_arrays(), config)).config
    assert (octo.repeat_task_tokens, octo.use_correct_attention) == (False, False)


def test_what_config_json_leaves_open_is_read_from_the_arrays(official, tmp_path: Path) -> None:
    config = official_config()
    del config["dataset_kwargs"], config["text_processor"]
    folder = shutil.copytree(official, tmp_path / "copy")
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).config == open_checkpoint(official).config
    assert [image.size for image in open_checkpoint(folder).config.images] == [64, 32]


def test_dataset_statistics_are_optional(official, tmp_path: Path) -> None:
    folder = shutil.copytree(official, tmp_path / "copy")
    (folder / "dataset_statistics.json").unlink()
    assert conrft("import", "octo", folder, tmp_path / "out") == 0


def test_every_mismatch_is_listed_by_name_and_nothing_is_left(tokens, tmp_path: Path, capsys) -> None:
    arrays = golden_arrays()
    del arrays["octo_transformer/task_language_pos_embedding"]
    arrays["octo_transformer/surplus"] = np.zeros(3, np.float32)
    arrays["optimizer/step"] = np.zeros(1, np.float32)
    arrays["octo_transformer/obs_wrist_projection/bias"] = np.zeros(5, np.float32)
    folder = write_checkpoint(tmp_path / "official", arrays)
    assert conrft("import", "octo", folder, tmp_path / "new" / "out", "--instruction", TEXT, "--tokens", tokens) == 2
    printed = capsys.readouterr().err
    assert "missing: task_language_pos_embedding (1, 16, 64)" in printed
    assert "extra: surplus (3,)" in printed
    assert "extra: optimizer/step (1,)" in printed
    assert "shape: obs_wrist_projection/bias is (5,), expected (64,)" in printed
    assert not (tmp_path / "new").exists()


def test_a_damaged_array_is_named_and_nothing_is_left(tmp_path: Path, capsys) -> None:
    folder = write_checkpoint(tmp_path / "official", golden_arrays(), layout="one file-set an array")
    array = folder / "7" / "default" / "octo_transformer.obs_primary_projection.kernel"
    chunk = next(path for path in array.iterdir() if path.name[0].isdigit())
    chunk.write_bytes(chunk.read_bytes()[:-20])
    (tmp_path / "place").mkdir()
    assert conrft("import", "octo", folder, tmp_path / "place" / "out") == 2
    assert "array octo_transformer/obs_primary_projection/kernel is damaged" in capsys.readouterr().err
    assert list((tmp_path / "place").iterdir()) == []


def test_a_lost_chunk_does_not_become_zeros(tmp_path: Path, capsys) -> None:
    folder = write_checkpoint(tmp_path / "official", golden_arrays(), layout="one file-set an array")
    array = folder / "7" / "default" / "octo_transformer.obs_primary_projection.kernel"
    next(path for path in array.iterdir() if path.name[0].isdigit()).unlink()
    assert conrft("import", "octo", folder, tmp_path / "out") == 2
    assert "array octo_transformer/obs_primary_projection/kernel is damaged or incomplete" in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, capsys) -> None:
    arrays = golden_arrays()
    arrays["octo_transformer/task_language_projection/bias"] = np.full(64, np.nan, np.float32)
    folder = write_checkpoint(tmp_path / "official", arrays)
    assert conrft("import", "octo", folder, tmp_path / "out") == 2
    assert "not finite: task_language_projection/bias" in capsys.readouterr().err


def test_bfloat16_arrays_are_read(tmp_path: Path) -> None:
    import ml_dtypes

    arrays = golden_arrays()
    name = "octo_transformer/task_language_projection/kernel"
    arrays[name] = arrays[name].astype(ml_dtypes.bfloat16)
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "official", arrays))
    read = checkpoint.read()["task_language_projection/kernel"]
    np.testing.assert_array_equal(read, arrays[name].astype(np.float32))


def test_arrays_that_one_process_saved_with_the_older_orbax_are_read() -> None:
    """Written by Orbax 0.4.4 the way the official code does on one device: everything inside one msgpack file."""
    arrays = open_arrays(DATA / "orbax_0_4_4_one_process")
    assert arrays.shapes == {
        "octo_transformer/projection/kernel": (2, 3),
        "octo_transformer/projection/bias": (3,),
        "heads_action/step": (),
    }
    np.testing.assert_array_equal(arrays["octo_transformer/projection/kernel"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["octo_transformer/projection/bias"], [0.5, -1.5, 3.0])  # bfloat16


def test_the_newest_finished_step_is_taken_unless_one_is_named(official, tmp_path: Path) -> None:
    folder = shutil.copytree(official, tmp_path / "copy")
    shutil.copytree(folder / "7", folder / "300")
    shutil.copytree(folder / "7", folder / "400.orbax-checkpoint-tmp-1")
    assert open_checkpoint(folder).step == 300
    assert open_checkpoint(folder, step=7).step == 7
    with pytest.raises(BackboneError, match=r"no step 8 .*\[7, 300\]"):
        open_checkpoint(folder, step=8)


def test_an_existing_folder_is_not_overwritten(official, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    assert conrft("import", "octo", official, tmp_path / "out") == 2
    assert "out: exists already" in capsys.readouterr().err


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, capsys) -> None:
    assert conrft("import", "octo", tmp_path / "nowhere", tmp_path / "out") == 2
    assert "nowhere/config.json" in capsys.readouterr().err


def test_a_checkpoint_without_a_step(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps(official_config()))
    assert conrft("import", "octo", tmp_path, tmp_path / "out") == 2
    assert "no step of a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"observation_tokenizers": {"proprio": spec("t", "LowdimObsTokenizer")}},
            "proprio: LowdimObsTokenizer",
        ),
        (
            {"readouts": {"action": 1, "value": 1}},
            r"readouts: .* not \['action', 'value'\]",
        ),
        ({"transformer_kwargs": {"add_position_embedding": True}}, "not supported: add_position_embedding"),
        ({"task_tokenizers": {}}, "task_tokenizers: exactly 'language'"),
        ({"max_horizon": None}, "not the configuration of an Octo model"),
        ({"observation_tokenizers": {"third": image_tokenizer("third")}}, "--camera image_third=CAMERA"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(model, message, official, tmp_path: Path) -> None:
    folder = shutil.copytree(official, tmp_path / "copy")
    (folder / "config.json").write_text(json.dumps(official_config(**model)))
    with pytest.raises(BackboneError, match=rf"config\.json: .*{message}"):
        open_checkpoint(folder)


def test_a_key_that_is_missing_is_named(official, tmp_path: Path) -> None:
    folder = shutil.copytree(official, tmp_path / "copy")
    config = official_config()
    del config["model"]["token_embedding_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=r"config\.json: key 'token_embedding_size' is missing"):
        open_checkpoint(folder)


def test_another_camera_may_stand_behind_an_image(official) -> None:
    cameras = {"image_primary": "front", "image_wrist": "wrist"}
    assert [image.camera for image in open_checkpoint(official, cameras=cameras).config.images] == ["front", "wrist"]


def test_a_file_of_tokens_may_hold_more_than_is_asked_for(official, tokens, tmp_path: Path) -> None:
    assert conrft("import", "octo", official, tmp_path / "out", "--instruction", TEXT, "--tokens", tokens) == 0
    stored = load_instruction(tmp_path / "out" / "instructions.safetensors", TEXT)
    assert stored.entry.encoder == "golden"


def test_tokens_of_another_width_are_refused(official, tmp_path: Path, capsys) -> None:
    path = tmp_path / "narrow.safetensors"
    store_instruction(path, task="a", instruction=TEXT, encoder="test", tokens=np.zeros((16, 47), np.float32))
    assert conrft("import", "octo", official, tmp_path / "out", "--instruction", TEXT, "--tokens", path) == 2
    assert "tokens are (16, 47), the checkpoint expects (16, 48)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
