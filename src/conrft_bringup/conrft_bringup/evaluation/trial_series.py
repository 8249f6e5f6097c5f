"""Which of the recorded trials of an evaluation count, and why others do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conrft_bringup.episode_figures import episode_number, finished_trials
from conrft_bringup.evaluation.trial_recording import TrialRecording, read_trial


@dataclass(frozen=True, kw_only=True)
class TrialSeries:
    """The trials of an evaluation, as far as they are recorded.

    Attributes:
        counted: those that count, in the order of their numbers.
        void: why a trial does not count, by its number, where none that was run again stands for it.
    """

    counted: list[TrialRecording]
    void: dict[int, str]

    @property
    def outcomes(self) -> list[tuple[bool, int]]:
        """Success and length of each trial that counts."""
        return [(trial.success, trial.length) for trial in self.counted]


def simulated_trials(folder: Path, last: int) -> TrialSeries:
    """The trials 1 to ``last`` that the simulator has judged, one for each number; raises ValueError, see read_trial.

    The start state is a function of the number. Where a number was run again, after a fault or because its trial was
    void, the first that is not void counts.
    """
    counted: dict[int, TrialRecording] = {}
    void: dict[int, str] = {}
    for info in sorted(finished_trials(folder), key=lambda info: (len(info.episode_id), info.episode_id)):
        number = episode_number(info.episode_id)
        if not 1 <= number <= last or number in counted:
            continue
        trial = read_trial(info)
        if why := trial.why_void() or trial.contradiction():
            void.setdefault(number, why)
        else:
            counted[number] = trial
    return TrialSeries(
        counted=[counted[number] for number in sorted(counted)],
        void={number: void[number] for number in sorted(set(void) - set(counted))},
    )


def persons_trials(folder: Path, wanted: int) -> TrialSeries:
    """The first ``wanted`` trials that count of those that a person has judged; raises ValueError, see read_trial.

    One that was void, aborted or faulty is repeated under the next number.
    """
    trials = [read_trial(info) for info in finished_trials(folder)]
    void = {trial.number: why for trial in trials if (why := trial.why_void())}
    counted = [trial for trial in trials if trial.number not in void][:wanted]
    return TrialSeries(counted=counted, void=void if len(counted) < wanted else {})
