"""The backbone that docs/backbones.md adds does what the page says of one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from conrft_policy.backbone import LOADERS, Backbone, BackboneError, load_backbone

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backbones.md"
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8)


def block(mark: str) -> str:
    (found,) = re.findall(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mean_colour.py").write_text(block("executed by src/conrft_policy/test/test_backbone_docs.py"))
    (tmp_path / "config.json").write_text(block("config.json"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LOADERS, "mean_colour", "mean_colour:load")
    return tmp_path


def test_it_has_everything_that_the_seam_asks_for(folder: Path) -> None:
    backbone = load_backbone(folder, "pick")
    asked = [name for name in vars(Backbone) if not name.startswith("_")]
    assert len(asked) > 8
    assert [name for name in asked if not hasattr(backbone, name)] == []


def test_a_stream_gives_the_numbers_of_the_whole_episode(folder: Path) -> None:
    backbone = load_backbone(folder, "pick")
    whole, stream = backbone.encode_episode({"side": FRAMES}), backbone.stream()
    np.testing.assert_array_equal(whole, [stream.step({"side": frame}) for frame in FRAMES])
    assert (whole.shape, whole.dtype) == ((4, backbone.embedding_dim), np.float32)
    np.testing.assert_array_equal(whole[0, :3], whole[0, 3:])


def test_an_unknown_key_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": "mean_colour", "colour": "red"}))
    with pytest.raises(BackboneError, match=r"config\.json: unknown keys \['colour'\]"):
        load_backbone(folder, "pick")
