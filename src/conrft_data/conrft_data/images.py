"""Camera images: ``sensor_msgs/Image`` to arrays and back, and the way from a camera's image to the policy's.

The one place where pixels change their container. Where the distribution's cv_bridge is installed it does the
unpacking; elsewhere numpy does.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

Pixels = NDArray[Any]
Rgb = NDArray[np.uint8]


class ImageError(ValueError):
    """An image cannot be used; the text names its source (topic or camera), what was expected and what came."""


@dataclass(frozen=True)
class _Encoding:
    dtype: type[np.generic]
    channels: int


# Names as in sensor_msgs/image_encodings.hpp.
_ENCODINGS = {
    "rgb8": _Encoding(np.uint8, 3),
    "bgr8": _Encoding(np.uint8, 3),
    "mono8": _Encoding(np.uint8, 1),
    "16UC1": _Encoding(np.uint16, 1),
    "32FC1": _Encoding(np.float32, 1),
}
_DEPTH_ENCODINGS = ("16UC1", "32FC1")


def image_to_array(message: Any, source: str = "image") -> Pixels:
    """Pixels of a ``sensor_msgs/Image`` in its own encoding.

    ``(H, W, 3)`` uint8 for rgb8 and bgr8, ``(H, W)`` uint8, uint16 or float32 for mono8, 16UC1 and 32FC1, in the
    machine's byte order. The result shares the message's memory where its rows are whole and its byte order is the
    machine's: treat it as read-only.

    Args:
        message: from rclpy or from a bag.
        source: topic or camera, for the error.

    Raises:
        ImageError: the encoding is not one of the five, or the size, step or amount of data do not agree.
    """
    encoding = _checked_encoding(message, source)
    bridge = _distribution_bridge()
    if bridge is not None and isinstance(message.data, array):
        return bridge(message)
    return _unpack(message, encoding)


def image_to_rgb(message: Any, source: str = "image") -> Rgb:
    """Pixels ``(H, W, 3)`` uint8 RGB of an rgb8, bgr8 or mono8 image; raises ImageError for anything else."""
    pixels = image_to_array(message, source)
    if message.encoding in _DEPTH_ENCODINGS:
        raise ImageError(f"{source}: expected a colour image (rgb8, bgr8 or mono8), got {message.encoding}")
    if message.encoding == "bgr8":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    if message.encoding == "mono8":
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    return pixels


def array_to_image(pixels: Pixels, encoding: str, frame_id: str = "") -> Any:
    """A ``sensor_msgs/msg/Image`` of ``pixels``, ``(H, W, 3)`` or ``(H, W)`` as the encoding asks.

    Raises ImageError when they do not fit it.
    """
    from sensor_msgs.msg import Image  # the only message class that this module makes; readers of bags do without it

    known = _ENCODINGS.get(encoding)
    if known is None:
        raise ImageError(f"{frame_id or 'image'}: expected one of {', '.join(_ENCODINGS)}, got {encoding!r}")
    expected = (3, known.dtype) if known.channels == 3 else (2, known.dtype)
    if (pixels.ndim, pixels.dtype.type) != expected or (known.channels == 3 and pixels.shape[2] != 3):
        shape = "(H, W, 3)" if known.channels == 3 else "(H, W)"
        raise ImageError(
            f"{frame_id or 'image'}: {encoding} expects {known.dtype.__name__} {shape}, "
            f"got {pixels.dtype} {pixels.shape}"
        )
    message = Image()
    message.header.frame_id = frame_id
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels.shape[1] * known.channels * pixels.dtype.itemsize
    # array.array is the one type that rclpy takes without looking at every element.
    message.data = array("B", pixels.tobytes())
    return message


def crop_and_resize(
    pixels: Rgb, width: int, height: int, crop: tuple[int, int, int, int] | None = None, source: str = "image"
) -> Rgb:
    """Cuts ``crop`` (left, top, right, bottom in pixels) out of ``(H, W, 3)`` and scales it to ``(height, width, 3)``.

    Every source pixel counts by the area it covers (box filter), so that small things do not flicker when they
    shrink. The input itself is returned when there is nothing to do. Raises ImageError when the crop reaches beyond
    the image.
    """
    rows, columns = pixels.shape[:2]
    left, top, right, bottom = crop if crop is not None else (0, 0, columns, rows)
    if right > columns or bottom > rows:
        raise ImageError(
            f"{source}: crop {[left, top, right, bottom]} needs an image of at least {right}x{bottom}, "
            f"got {columns}x{rows}"
        )
    if (right - left, bottom - top) == (width, height):
        return pixels if (rows, columns) == (height, width) else np.ascontiguousarray(pixels[top:bottom, left:right])
    enlarges = width > right - left or height > bottom - top
    # A box filter that enlarges repeats pixels in blocks; bilinear is the same kind of average without them.
    filter_ = PillowImage.Resampling.BILINEAR if enlarges else PillowImage.Resampling.BOX
    part = PillowImage.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    return np.asarray(part.resize((width, height), filter_))


def _checked_encoding(message: Any, source: str) -> _Encoding:
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(f"{source}: expected one of {', '.join(_ENCODINGS)}, got encoding {message.encoding!r}")
    if not message.width or not message.height:
        raise ImageError(f"{source}: expected an image with pixels, got {message.width}x{message.height}")
    row = message.width * encoding.channels * np.dtype(encoding.dtype).itemsize
    if message.step < row:
        raise ImageError(
            f"{source}: expected a step of at least {row} bytes for {message.width} pixels of {message.encoding}, "
            f"got {message.step}"
        )
    if len(message.data) != message.step * message.height:
        raise ImageError(
            f"{source}: expected {message.step * message.height} bytes ({message.height} rows of {message.step}), "
            f"got {len(message.data)}"
        )
    return encoding


def _unpack(message: Any, encoding: _Encoding) -> Pixels:
    """The numpy way.

    A view of the message's bytes, copied only to swap bytes or to drop the padding of rows of odd length.
    """
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(message.height, message.step)
    row = message.width * encoding.channels * dtype.itemsize
    pixels = (rows if row == message.step else np.ascontiguousarray(rows[:, :row])).view(dtype)
    pixels = pixels.astype(dtype.newbyteorder("="), copy=False)
    return pixels.reshape(message.height, message.width, 3) if encoding.channels == 3 else pixels


@functools.cache
def _distribution_bridge() -> Callable[[Any], Pixels] | None:
    """cv_bridge's conversion where the ROS distribution brings it.

    A cv_bridge outside the ament index is the one of ROS 1 from PyPI, which does not work with this numpy.
    """
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("cv_bridge")
        from cv_bridge import CvBridge
    except (PackageNotFoundError, ImportError):
        return None
    return functools.partial(CvBridge().imgmsg_to_cv2, desired_encoding="passthrough")
