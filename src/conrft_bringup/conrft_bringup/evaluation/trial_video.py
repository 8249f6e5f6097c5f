"""A trial as mp4: all cameras side by side, above them the step, who moved the arm, and the verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from conrft_bringup.evaluation.trial_recording import TrialRecording
from conrft_data.types import Episode, Observation

if TYPE_CHECKING:
    from conrft_bringup.evaluation.classifier_verdicts import TrialVerdict

_RATE = 10  # frames in a second, as they were recorded
_HEIGHT = 256  # of a camera in the film, pixels
_BAND = 24  # of the text, pixels; height and width of an H.264 picture are even
_LAST_FRAMES = 10  # for which the outcome stands


def write_video(path: Path, trial: TrialRecording, episode: Episode, verdict: TrialVerdict | None) -> None:
    """Writes the film (H.264, plays in any browser); it appears whole or not at all."""
    import av  # an encoder is needed for films only

    temporary = path.with_name(f".tmp-{path.name}")
    frames = [_frame(observation, _text(observation.step, trial, verdict)) for observation in episode.observations]
    frames += [frames[-1]] * _LAST_FRAMES
    with av.open(str(temporary), "w") as film:
        stream = film.add_stream("libx264", rate=_RATE, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    temporary.replace(path)


def _text(step: int, trial: TrialRecording, verdict: TrialVerdict | None) -> str:
    parts = [f"trial {trial.number}", f"step {step:>3}"]
    if step in trial.sources:
        parts.append(trial.sources[step].name.lower())
    if step in trial.truth:
        parts.append(f"truth: {'done' if trial.truth[step] else 'not yet'}")
    if verdict is not None and step in verdict.passes:
        said = "done" if verdict.passes[step] else "not yet"
        parts.append(f"classifier: {said} ({verdict.probability[step]:.2f})")
    if step == trial.length:
        parts.append("SUCCESS" if trial.success else "FAILURE")
    return "   ".join(parts)


def _frame(observation: Observation, text: str) -> NDArray[np.uint8]:
    """One picture, even in height and width."""
    views = []
    for image in observation.images.values():
        width = 2 * round(_HEIGHT * image.shape[1] / image.shape[0] / 2)
        views.append(np.asarray(Image.fromarray(image).resize((width, _HEIGHT), Image.Resampling.BILINEAR)))
    picture = np.concatenate(views, axis=1)
    band = Image.new("RGB", (picture.shape[1], _BAND), "black")
    ImageDraw.Draw(band).text((6, 6), text, fill="white")
    return np.concatenate([np.asarray(band), picture])
