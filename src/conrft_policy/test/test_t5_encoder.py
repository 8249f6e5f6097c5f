"""Instructions through T5: the checkpoint's own Flax weights in transformers' torch code, offline."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from official_folders import golden_arrays, official_config, write_checkpoint

from conrft_policy import backbone_cli
from conrft_policy.backbone import BackboneError, load_backbone
from conrft_policy.instructions import load_instruction
from conrft_policy.octo.t5_encoder import load_t5, t5_from_flax
from conrft_policy.text_encoder import TextEncoderMissingError

transformers = pytest.importorskip("transformers")

DATA = Path(__file__).parent / "data"
TEXT = "put banana on plate"
ABSENT = "t5-absent"  # in nobody's hub cache
WORDS = ["<pad>", "</s>", "<unk>", "put", "banana", "on", "plate", "fly"]


@pytest.fixture(scope="module")
def flax() -> dict[str, np.ndarray]:
    """Weights, input and output of transformers' Flax T5 encoder (two layers, width 48)."""
    with np.load(DATA / "t5_flax_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def weights(flax) -> dict[str, np.ndarray]:
    return {name.removeprefix("param/"): values for name, values in flax.items() if name.startswith("param/")}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and no weights."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers.processors import TemplateProcessing

    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return folder


def conrft(*words: object) -> int:
    parser = argparse.ArgumentParser()
    backbone_cli.register(parser.add_subparsers())
    args = parser.parse_args(["backbone", *map(str, words)])
    return int(args.run(args))


def with_encoder(name: str) -> dict:
    config = official_config()
    config["model"]["task_tokenizers"]["language"]["kwargs"]["encoder"] = name
    return config


def expected(weights, tokens: int = 16) -> np.ndarray:
    ids = torch.tensor([[3, 4, 5, 6, 1] + [0] * (tokens - 5)])
    with torch.inference_mode():
        return (
            t5_from_flax(weights).eval()(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state[0].numpy()
        )


def test_flax_weights_give_the_flax_encoders_numbers(flax, weights) -> None:
    ids, mask = torch.from_numpy(flax["ids"]), torch.from_numpy(flax["mask"])
    with torch.inference_mode():
        hidden = t5_from_flax(weights).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    np.testing.assert_allclose(hidden.numpy(), flax["out"], rtol=0, atol=1e-5)


def test_a_text_is_padded_and_cut(weights, tokenizer) -> None:
    encoder = load_t5("t5-base", tokenizer, weights)
    np.testing.assert_allclose(encoder.encode(TEXT, tokens=16), expected(weights), atol=1e-6)
    assert encoder.encode(TEXT * 9, tokens=4).shape == (4, 48)


def test_weights_may_come_from_a_folder(weights, tokenizer, tmp_path: Path) -> None:
    t5_from_flax(weights).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tmp_path)
    encoder = load_t5("t5-base", tmp_path)
    np.testing.assert_allclose(encoder.encode(TEXT, tokens=16), expected(weights), atol=1e-6)


def test_what_is_missing_is_said_once_with_how_to_get_it(weights) -> None:
    with pytest.raises(TextEncoderMissingError, match=r"t5-absent's tokenizer and weights.*hf down.*--t5.*--tokens"):
        load_t5(ABSENT)
    with pytest.raises(TextEncoderMissingError, match=r"tokenizer \(the checkpoint itself has the weights\)"):
        load_t5(ABSENT, None, weights)


def test_an_encoder_that_does_not_fit_is_refused(weights) -> None:
    broken = {name: values for name, values in weights.items() if not name.endswith("final_layer_norm/weight")}
    with pytest.raises(ValueError, match=r"(?s)text encoder: .*encoder\.final_layer_norm\.weight"):
        t5_from_flax(broken)


def test_import_encodes_with_the_checkpoints_own_t5(weights, tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    folder = write_checkpoint(tmp_path / "official", golden_arrays())
    words = ("--instruction", TEXT, "--instruction", "fly", "--t5", tokenizer)
    assert conrft("import", "octo", folder, tmp_path / "out", *words) == 0
    stored = load_instruction(tmp_path / "out" / "instructions.safetensors", TEXT)
    np.testing.assert_allclose(stored.tokens, expected(weights), atol=1e-6)
    assert stored.entry.encoder == "t5-base"
    assert load_backbone(tmp_path / "out", "FLY").instruction == "fly"


def test_import_without_a_tokenizer_leaves_nothing(tmp_path: Path, capsys) -> None:
    pytest.importorskip("orbax.checkpoint")
    folder = write_checkpoint(tmp_path / "official", golden_arrays(), with_encoder(ABSENT))
    assert conrft("import", "octo", folder, tmp_path / "out", "--instruction", TEXT) == 2
    assert "instruction 'put banana on plate': encoding an instruction needs t5-absent" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["official"]


def test_an_instruction_that_is_not_stored_is_encoded_where_t5_is_at_hand(weights, tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    t5 = tmp_path / "t5"
    t5_from_flax(weights).save_pretrained(t5)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(t5)
    folder = write_checkpoint(tmp_path / "official", golden_arrays(), with_encoder(ABSENT))
    assert conrft("import", "octo", folder, tmp_path / "out") == 0
    with pytest.raises(BackboneError, match=r"(?s)no tokens for 'fly' \(stored: nothing\).*hf download"):
        load_backbone(tmp_path / "out", "fly")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps({**values, "text_encoder": str(t5)}))
    assert load_backbone(tmp_path / "out", "fly").instruction == "fly"


def test_the_tokens_command_uses_the_backbones_encoder(weights, tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    t5 = tmp_path / "t5"
    t5_from_flax(weights).save_pretrained(t5)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(t5)
    assert conrft("import", "octo", write_checkpoint(tmp_path / "official", golden_arrays()), tmp_path / "out") == 0
    assert conrft("tokens", tmp_path / "out", "--task", "pick", "--instruction", TEXT, "--t5", t5) == 0
    assert load_backbone(tmp_path / "out", "pick").instruction == TEXT
