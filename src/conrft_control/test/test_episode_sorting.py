"""Every message goes into its own episode's recording, which is finished when its final step is complete."""

from collections.abc import Callable

from conrft_control.episode_sorting import Abandon, EpisodeSorter, Finish, Job, Open, Write
from conrft_data import topics
from conrft_data.ticks import EpisodeStatus, Tick
from conrft_data.types import Outcome, Phase

Status = Callable[..., EpisodeStatus]
ALL = (topics.OBSERVATION, topics.ACTION, topics.REWARD)


def sorter() -> EpisodeSorter:
    return EpisodeSorter(1.0, lambda status: f"{status.phase.name} {status.outcome.name} {status.final_step}".encode())


def tell(
    sorter: EpisodeSorter, *steps: int, episode: int = 1, kinds: tuple[str, ...] = ALL, wall_s: float = 0.0
) -> list[Job]:
    return [
        job
        for step in steps
        for kind in kinds
        for job in sorter.on_tick(kind, Tick(step * 100, episode, step), b"raw", wall_s)
    ]


def finishes(jobs: list[Job]) -> list[Finish]:
    return [job for job in jobs if isinstance(job, Finish)]


def test_a_recording_opens_when_its_episode_runs_and_holds_what_is_said_about_it(status: Status) -> None:
    sort = sorter()
    running = status(Phase.RUNNING, stamp_ns=5)
    assert sort.on_status(running, b"running", 0.0) == [
        Open(running),
        Write(running.episode_id, topics.EPISODE_STATE, b"running", 5),
    ]
    assert tell(sort, 0, kinds=(topics.ACTION,)) == [Write(running.episode_id, topics.ACTION, b"raw", 0)]
    assert sort.on_extra("/scene_state", b"scene", 7) == [Write(running.episode_id, "/scene_state", b"scene", 7)]


def test_the_same_state_said_again_opens_nothing(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    assert sort.on_status(status(Phase.RUNNING), b"", 0.0) == []


def test_the_end_said_again_is_written_once_and_waited_for_no_longer(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0)
    ended = status(Phase.ENDED, outcome=Outcome.FAULT, final_step=1)
    assert len(sort.on_status(ended, b"", 0.0)) == 1
    assert sort.on_status(ended, b"", 0.9) == []
    assert [job.outcome for job in finishes(sort.on_time(1.0))] == [Outcome.FAULT]


def test_a_message_that_overtakes_the_news_is_kept_for_its_episode(status: Status) -> None:
    sort = sorter()
    assert tell(sort, 0, kinds=(topics.OBSERVATION,)) == []
    jobs = sort.on_status(status(Phase.RUNNING), b"", 0.0)
    assert [type(job) for job in jobs] == [Open, Write, Write]


def test_messages_of_an_older_episode_are_strays_and_are_counted(status: Status) -> None:
    sort = sorter()
    tell(sort, 3, episode=7, kinds=(topics.ACTION,))
    jobs = sort.on_status(status(Phase.RUNNING, episode=8), b"", 0.0)
    assert [type(job) for job in jobs] == [Open, Write]
    assert sort.strays == 1


def test_an_episode_is_finished_as_soon_as_its_final_step_is_complete(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0, 1)
    jobs = sort.on_status(status(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=1), b"", 0.0)
    assert finishes(jobs) == [Finish("s-training-000001", Outcome.SUCCESS, 1, "")]


def test_late_messages_of_the_final_step_are_waited_for(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0)
    jobs = sort.on_status(status(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=1), b"", 0.0)
    jobs += tell(sort, 1, kinds=(topics.OBSERVATION, topics.ACTION))
    assert not finishes(jobs)
    jobs = tell(sort, 1, kinds=(topics.REWARD,))
    assert isinstance(jobs[0], Write)
    assert finishes(jobs) == [Finish("s-training-000001", Outcome.SUCCESS, 1, "")]


def test_the_wait_for_late_messages_is_bounded_and_what_is_missing_is_said(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0, 2)
    sort.on_status(status(Phase.ENDED, outcome=Outcome.TIMEOUT, final_step=3), b"", 10.0)
    assert sort.on_time(10.9) == []
    (finish,) = finishes(sort.on_time(11.0))
    assert "observation lacks 2 of 4 steps" in finish.remark


def test_the_next_episode_is_recorded_while_the_last_still_waits(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0)
    sort.on_status(status(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=1), b"", 0.0)
    sort.on_status(status(Phase.RUNNING, episode=2), b"", 0.1)
    assert tell(sort, 0, episode=2, kinds=(topics.ACTION,))[0].episode_id == "s-training-000002"
    assert finishes(tell(sort, 1))[0].episode_id == "s-training-000001"


def test_an_episode_whose_end_was_never_told_is_left_for_salvage(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    jobs = sort.on_status(status(Phase.RUNNING, episode=2), b"", 0.0)
    assert isinstance(jobs[0], Abandon)
    assert jobs[0].episode_id == "s-training-000001"


def test_a_shutdown_in_mid_episode_ends_the_recording_as_aborted_at_its_last_whole_step(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0, 1, 2)
    tell(sort, 3, kinds=(topics.OBSERVATION,))
    state, finish = sort.stop(stamp_ns=400)
    assert state == Write("s-training-000001", topics.EPISODE_STATE, b"ENDED ABORTED 2", 400)
    assert finish == Finish("s-training-000001", Outcome.ABORTED, 2, "")


def test_a_shutdown_after_the_end_keeps_the_outcome_that_was_told(status: Status) -> None:
    sort = sorter()
    sort.on_status(status(Phase.RUNNING), b"", 0.0)
    tell(sort, 0)
    sort.on_status(status(Phase.ENDED, outcome=Outcome.SUCCESS, final_step=1), b"", 0.0)
    assert [type(job) for job in sort.stop(0)] == [Finish]


def test_an_end_without_a_recording_is_nothing(status: Status) -> None:
    assert sorter().on_status(status(Phase.ENDED, outcome=Outcome.FAULT), b"", 0.0) == []
