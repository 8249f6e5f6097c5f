"""Feature maps of an episode: one computation for each frame and crop, the same whenever it is repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from conrft_data.types import Episode
from conrft_learner.image_features import ImageFeatures, cropped, load_image_features, resized
from conrft_learner.resnet10 import random_resnet10

MakeEpisode = Callable[..., Episode]
RNG = np.random.default_rng(0)


def features(bank: int, seed: int = 0) -> ImageFeatures:
    return ImageFeatures(random_resnet10(), ("side",), crop_bank=bank, seed=seed)


def test_without_a_bank_a_frame_is_stored_as_the_encoder_sees_the_whole_image() -> None:
    frames = RNG.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    maps = features(1).encode("e", "side", frames)
    assert maps.shape == (2, 1, 512, 16) and maps.dtype == np.float16
    expected = random_resnet10()(torch.from_numpy(frames).permute(0, 3, 1, 2).float()).flatten(2)
    np.testing.assert_allclose(maps[:, 0], expected.numpy(), rtol=2e-3, atol=2e-3)


def test_a_bank_holds_different_crops_of_one_frame_and_the_same_ones_when_repeated() -> None:
    frames = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    bank = features(3)
    maps = bank.encode("e", "side", frames)
    assert maps.shape == (2, 3, 512, 16)
    assert not np.array_equal(maps[0, 0], maps[0, 1])
    np.testing.assert_array_equal(maps, features(3).encode("e", "side", frames))
    assert not np.array_equal(maps, bank.encode("another", "side", frames))


def test_a_crop_shifts_the_image_by_at_most_four_pixels_and_repeats_its_edge() -> None:
    image = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    np.testing.assert_array_equal(cropped(image, (4, 4)), image)
    up_left = cropped(image, (0, 0))
    np.testing.assert_array_equal(up_left, np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")[:6, :6])
    down_right = cropped(image, (8, 7))
    np.testing.assert_array_equal(down_right, np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")[8:14, 7:13])


def test_half_the_size_is_an_average_over_a_triangle_of_four_pixels_in_each_direction() -> None:
    image = RNG.integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    weights = np.array([0.125, 0.375, 0.375, 0.125])
    window = image[0, 99:103, 59:63].astype(np.float64)
    expected = np.einsum("i,j,ijc->c", weights, weights, window)
    np.testing.assert_allclose(resized(torch.from_numpy(image))[0, :, 50, 30], expected, rtol=1e-5)


def test_only_frames_of_transitions_are_encoded(make_episode: MakeEpisode) -> None:
    episode = make_episode(1, length=3)
    longer = replace(episode, observations=[*episode.observations, episode.observations[-1]])
    assert features(1).encode_episode(longer)["side"].shape == (4, 1, 512, 16)


def test_features_that_half_precision_cannot_hold_are_an_error() -> None:
    encoder = random_resnet10()
    encoder.register_forward_hook(lambda module, arguments, maps: maps * 1e6)
    frames = RNG.integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="half precision does not hold"):
        ImageFeatures(encoder, ("side",)).encode("e", "side", frames)


def test_a_missing_camera_is_named(make_episode: MakeEpisode) -> None:
    with pytest.raises(ValueError, match="test-000001 has no images of camera wrist"):
        ImageFeatures(random_resnet10(), ("wrist",)).encode_episode(make_episode(1))


def test_random_weights_must_be_asked_for_and_are_reported() -> None:
    said: list[str] = []
    arguments = {"crop_bank": 1, "seed": 0, "device": "cpu", "report": said.append}
    with pytest.raises(ValueError, match="resnet_weights"):
        load_image_features("", ("side",), **arguments)
    load_image_features("random", ("side",), **arguments)
    assert len(said) == 1 and "RANDOM" in said[0]


def test_the_fingerprint_tells_weights_cameras_crops_and_seed_apart() -> None:
    other = ImageFeatures(random_resnet10(1), ("side",))
    prints = {f.fingerprint for f in (features(1), features(2), features(1, seed=1), other)}
    assert len(prints) == 4 and features(1).fingerprint in prints
