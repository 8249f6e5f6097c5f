"""Do the live observations look like the demonstrations, and does the policy answer them as the person did?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from conrft_bringup.doctor.finding import Finding, error, ok, warning
from conrft_data.rotations import inverse, multiply, to_rotation_vector
from conrft_data.types import ActionSource, Episode, Float64, Image

_BINS = 32
# A camera that was moved, or a light that went out, changes far more than the scene does from one demonstration to the
# next; a factor leaves room for a person's arm in the picture.
_SUSPICIOUS, _WRONG = 2.0, 5.0
# Below this the demonstrations are too much alike to measure by: identical renders differ by nothing at all.
_LEAST_SPREAD = 0.02
# The reset motion ends within a centimetre; start poses further off were made with another reset.
_POSE_TOLERANCE = 0.05  # m
_ANGLE_TOLERANCE = 0.2  # rad


def colour_histogram(image: Image) -> Float64:
    """``(3, 32)``: how often each colour value stands in ``(H, W, 3)``, each channel summing to one."""
    counts = [np.bincount(image[..., channel].ravel() // (256 // _BINS), minlength=_BINS) for channel in range(3)]
    return np.asarray(counts, dtype=np.float64) / (image.shape[0] * image.shape[1])


def histogram_distance(a: Float64, b: Float64) -> float:
    """Earth mover's distance of two colour histograms, mean over the channels, as a part of the whole range 0..1."""
    return float(np.abs(np.cumsum(a - b, axis=1)).sum(axis=1).mean() / (_BINS - 1))


def check_image(camera: str, live: Image | None, first_images: Sequence[Image]) -> Finding:
    """The live image's colours are like those with which demonstrations began.

    ``first_images``: of the demonstrations, ``(H, W, 3)`` each, of the same size as ``live``.
    """
    check = f"view {camera}"
    if live is None:
        return error(check, "no live image to compare", f"see camera {camera}")
    demonstrated = [colour_histogram(image) for image in first_images]
    middle = np.mean(demonstrated, axis=0)
    spread = max(_LEAST_SPREAD, max(histogram_distance(one, middle) for one in demonstrated))
    times = histogram_distance(colour_histogram(live), middle) / spread
    brightness = float(live.mean()) - float(np.mean([image.mean() for image in first_images]))
    told = f"colours {times:.1f} times as far from the demonstrations as these lie apart, brightness {brightness:+.0f}"
    if times < _SUSPICIOUS:
        return ok(check, told)
    cure = "compare with conrft demos show: camera moved, light or exposure changed, wrong camera (serial numbers)?"
    return error(check, told, cure) if times >= _WRONG else warning(check, told, cure)


def check_start_pose(live: Float64 | None, starts: Sequence[Float64]) -> Finding:
    """The arm stands where demonstrations began; ``starts``: their first poses ``(7,)``."""
    check = "start pose"
    if live is None:
        return error(check, "no live pose to compare", "see robot pose")
    positions = np.asarray(starts)[:, :3]
    low, high = positions.min(axis=0) - _POSE_TOLERANCE, positions.max(axis=0) + _POSE_TOLERANCE
    away = float(np.maximum(low - live[:3], live[:3] - high).max())
    turned = min(_angle(live[3:], start[3:]) for start in starts)
    if away <= 0 and turned <= _ANGLE_TOLERANCE:
        return ok(check, "where the demonstrations began")
    cure = "expected before the first reset or in an episode; after a reset: another task, base frame or tool frame"
    told = f"{max(0.0, away + _POSE_TOLERANCE):.2f} m and {turned:.2f} rad from where the demonstrations began"
    return warning(check, told, cure)


def _angle(a: Float64, b: Float64) -> float:
    """Between two quaternions x y z w, rad."""
    return float(np.linalg.norm(to_rotation_vector(multiply(a, inverse(b)))))


def check_action_error(proposals: Float64, demonstrated: Float64) -> Finding:
    """The policy's actions on demonstrations are nearer to the person's than one constant action would be.

    Both ``(N, 7)`` in [-1, 1]. The yardstick is the demonstrations' own mean action: a policy that does not beat it
    has learned nothing that can be seen, or sees something else than it was trained on.
    """
    check = "action error"
    if not len(demonstrated):
        return warning(check, "no step of these demonstrations was the person's", "record demonstrations")
    if not np.isfinite(proposals).all():
        return error(check, "the policy's actions are not finite", "train it again; do not let it drive")
    mean = float(np.mean((proposals - demonstrated) ** 2))
    constant = float(np.mean((demonstrated - demonstrated.mean(axis=0)) ** 2))
    told = f"mean squared error {mean:.3f} on {len(proposals)} demonstrated steps, a constant action has {constant:.3f}"
    cure = "is this policy of this task and this backbone? conrft policy info; else train longer"
    if mean >= constant:
        return error(check, told, cure)
    return warning(check, told, cure) if mean > 0.7 * constant else ok(check, told)


def demonstrated_steps(episode: Episode) -> list[int]:
    """Steps whose action was the person's."""
    return [step for step in range(episode.final_step) if episode.commands[step].source is ActionSource.OPERATOR]


def demonstration_findings(
    episodes: Sequence[Episode], images: Mapping[str, Image], pose: Float64 | None, cameras: Sequence[str]
) -> list[Finding]:
    """Live against demonstrated observations; ``images`` and ``pose``: live."""
    first = [episode.observations[0] for episode in episodes]
    views = [check_image(name, images.get(name), [one.images[name] for one in first]) for name in cameras]
    return [*views, check_start_pose(pose, [one.tcp_pose for one in first])]
