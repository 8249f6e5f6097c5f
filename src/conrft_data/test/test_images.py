"""Images keep their pixels on the way between messages and arrays, in every encoding and layout."""

import sys
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from conrft_data import images
from conrft_data.images import ImageError, array_to_image, crop_and_resize, image_to_array, image_to_rgb

DTYPES = {"rgb8": np.uint8, "bgr8": np.uint8, "mono8": np.uint8, "16UC1": np.uint16, "32FC1": np.float32}
ENCODINGS = st.sampled_from(sorted(DTYPES))


def pixels_of(encoding: str, width: int, height: int, seed: int = 0) -> np.ndarray:
    shape = (height, width, 3) if encoding in ("rgb8", "bgr8") else (height, width)
    values = np.random.default_rng(seed).integers(0, 255, shape)
    return values.astype(DTYPES[encoding])


def message_of(pixels: np.ndarray, encoding: str, *, padding: int = 0, bigendian: bool = False) -> Image:
    """A message as another program could send it: rows padded to ``step``, in either byte order."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<")).reshape(height, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(bigendian), step=rows.shape[1])
    message.data = array("B", rows.tobytes())
    return message


@given(ENCODINGS, st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_step_and_byte_order_are_honoured(
    encoding: str, width: int, height: int, padding: int, bigendian: bool
) -> None:
    pixels = pixels_of(encoding, width, height)
    read = image_to_array(message_of(pixels, encoding, padding=padding, bigendian=bigendian))
    assert read.dtype == pixels.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, pixels)


@given(ENCODINGS, st.integers(1, 9), st.integers(1, 9))
def test_an_array_survives_the_way_to_a_message_and_back(encoding: str, width: int, height: int) -> None:
    pixels = pixels_of(encoding, width, height)
    message = array_to_image(pixels, encoding, "side")
    assert (message.header.frame_id, message.width, message.height) == ("side", width, height)
    assert message.is_bigendian == (sys.byteorder == "big")
    np.testing.assert_array_equal(image_to_array(message), pixels)


def test_whole_rows_are_not_copied() -> None:
    message = message_of(pixels_of("rgb8", 4, 3), "rgb8")
    pixels = images._unpack(message, images._ENCODINGS["rgb8"])
    assert np.shares_memory(pixels, np.frombuffer(message.data, np.uint8))


def test_colours_come_out_as_rgb() -> None:
    pixels = pixels_of("rgb8", 4, 3)
    np.testing.assert_array_equal(image_to_rgb(message_of(pixels, "rgb8")), pixels)
    np.testing.assert_array_equal(image_to_rgb(message_of(pixels[:, :, ::-1], "bgr8")), pixels)
    grey = image_to_rgb(message_of(pixels[:, :, 0], "mono8"))
    np.testing.assert_array_equal(grey, np.stack([pixels[:, :, 0]] * 3, axis=2))


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_no_colour(encoding: str) -> None:
    with pytest.raises(ImageError, match=f"wrist: expected a colour image .* got {encoding}"):
        image_to_rgb(message_of(pixels_of(encoding, 2, 2), encoding), "wrist")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"encoding": "yuv422"}, "expected one of .* got encoding 'yuv422'"),
        ({"width": 0}, "expected an image with pixels, got 0x3"),
        ({"step": 11}, "expected a step of at least 12 bytes for 4 pixels of rgb8, got 11"),
        ({"height": 4}, r"expected 48 bytes \(4 rows of 12\), got 36"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(changes: dict[str, Any], complaint: str) -> None:
    message = message_of(pixels_of("rgb8", 4, 3), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=f"side/color/image_raw: {complaint}"):
        image_to_array(message, "side/color/image_raw")


def test_an_array_that_does_not_fit_the_encoding_is_refused() -> None:
    with pytest.raises(ImageError, match=r"rgb8 expects uint8 \(H, W, 3\), got float32 \(2, 2, 3\)"):
        array_to_image(np.zeros((2, 2, 3), np.float32), "rgb8")
    with pytest.raises(ImageError, match=r"16UC1 expects uint16 \(H, W\)"):
        array_to_image(np.zeros((2, 2, 3), np.uint16), "16UC1")


@pytest.mark.parametrize("encoding", sorted(DTYPES))
def test_numpy_and_the_distributions_cv_bridge_agree(encoding: str) -> None:
    bridge = images._distribution_bridge()
    if bridge is None:
        pytest.skip("no ROS distribution with cv_bridge here")
    message = message_of(pixels_of(encoding, 5, 4), encoding, padding=4)
    np.testing.assert_array_equal(bridge(message), images._unpack(message, images._ENCODINGS[encoding]))


def test_the_distributions_cv_bridge_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(pixels_of("rgb8", 4, 3), "rgb8")
    answer = np.zeros((3, 4, 3), np.uint8)
    monkeypatch.setattr(images, "_distribution_bridge", lambda: lambda _: answer)
    assert image_to_array(message) is answer


def test_nothing_is_done_to_an_image_of_the_right_size() -> None:
    pixels = pixels_of("rgb8", 8, 6)
    assert crop_and_resize(pixels, 8, 6) is pixels


def test_shrinking_averages_every_pixel_by_its_area() -> None:
    pixels = pixels_of("rgb8", 8, 6)
    expected = pixels.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    # Rounded twice, once for each direction.
    np.testing.assert_allclose(crop_and_resize(pixels, 4, 3), expected, atol=1.0)


def test_a_crop_of_the_right_size_keeps_its_pixels() -> None:
    pixels = pixels_of("rgb8", 8, 6)
    np.testing.assert_array_equal(crop_and_resize(pixels, 3, 2, crop=(1, 2, 4, 4)), pixels[2:4, 1:4])


def test_a_crop_is_scaled_like_an_image_of_its_own() -> None:
    pixels = pixels_of("rgb8", 16, 12)
    np.testing.assert_array_equal(
        crop_and_resize(pixels, 4, 4, crop=(4, 2, 12, 10)), crop_and_resize(pixels[2:10, 4:12], 4, 4)
    )


@given(st.integers(1, 20), st.integers(1, 20))
def test_one_colour_stays_one_colour_at_any_size(width: int, height: int) -> None:
    pixels = np.full((7, 9, 3), (200, 30, 90), np.uint8)
    resized = crop_and_resize(pixels, width, height)
    assert resized.shape == (height, width, 3)
    assert (resized == (200, 30, 90)).all()


def test_a_crop_beyond_the_image_is_refused() -> None:
    with pytest.raises(ImageError, match=r"side: crop \[0, 0, 9, 6\] needs an image of at least 9x6, got 8x6"):
        crop_and_resize(pixels_of("rgb8", 8, 6), 4, 4, crop=(0, 0, 9, 6), source="side")
