"""A success that the operator takes back in the running graph: the episode stays a trial, and fails it."""

import io
import sys
from pathlib import Path

from conrft_bringup.demo.episode_count import EpisodeCount
from conrft_bringup.demo.graph_run import Watch, run_graph
from conrft_bringup.demo.progress_line import ProgressLine
from conrft_bringup.episode_figures import finished_trials
from conrft_data.bags import list_episodes
from conrft_data.types import Outcome

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from short_run import make_run

EPISODES = 3


def test_vetoed_episodes_of_training_neither_fail_the_stage_nor_vanish(tmp_path: Path) -> None:
    arguments = make_run(tmp_path, false_successes=True)  # the scripted operator takes every success back
    episodes = tmp_path / "episodes"
    count = EpisodeCount(episodes, with_take_overs=True)
    line = ProgressLine("training", io.StringIO())
    run_graph("train", {**arguments, "episodes": str(EPISODES)}, tmp_path / "train.log", line, Watch(count, EPISODES))
    infos = list_episodes(episodes)
    assert {info.recorded_outcome for info in infos} == {Outcome.SUCCESS}
    assert [info.outcome for info in infos] == [Outcome.TIMEOUT] * EPISODES
    assert len(finished_trials(episodes)) == EPISODES
    assert (len(count.trials), count.successes) == (EPISODES, 0)
