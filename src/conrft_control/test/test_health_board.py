"""Who must be well, who is silent, and for how long somebody has been in error."""

from conrft_control.health_board import HealthBoard, Level, node_of


def test_a_status_belongs_to_the_node_that_its_name_begins_with() -> None:
    assert node_of("/robot/observer: streams") == node_of("robot/observer") == ("robot", "observer")
    assert node_of("observer: streams") == node_of("/observer") == ("", "observer")


def test_a_dead_node_is_not_hidden_by_the_same_node_of_another_robot() -> None:
    board = HealthBoard(["observer", "camera"], silence_s=5, namespace="/left")
    board.put("left/observer", Level.OK, "", 0, own=True)
    for name in ("right/observer", "observer", "/left/gripper/observer"):
        board.put(name, Level.OK, "", 9, own=True)
    board.put("right/camera", Level.OK, "", 9)
    assert board.not_ready(10) == ["camera: has not reported yet", "observer: silent for 10.0 s"]
    board.put("camera: frame rate", Level.OK, "", 10)  # a driver's, by diagnostic_updater
    assert board.not_ready(10) == ["observer: silent for 10.0 s"]


def test_a_node_that_has_not_reported_is_not_ready_but_has_not_failed() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    assert board.not_ready(0) == ["observer: has not reported yet"]
    assert board.failed(1000, 3) == []


def test_a_node_that_fell_silent_has_failed() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    board.put("observer", Level.OK, "", 10)
    assert board.failed(15, 3) == []
    assert board.failed(15.1, 3) == ["observer: silent for 5.1 s"]


def test_while_the_listener_itself_stood_still_nobody_was_silent() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    for tenths in range(100, 120):
        board.listen(tenths / 10)
    board.put("observer", Level.OK, "", 12)
    board.listen(112)  # the whole machine slept
    assert board.failed(112, 3) == []
    for tenths in range(1120, 1180):
        board.listen(tenths / 10)
    assert board.failed(118, 3) == ["observer: silent for 5.9 s"]


def test_another_node_of_the_suite_that_fell_silent_is_known_but_has_not_failed() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    board.put("learner", Level.ERROR, "no disk", 0, own=True)
    board.put("camera_driver", Level.OK, "", 0)
    assert board.silent(6, required=False) == ["learner: silent for 6.0 s"]
    assert board.failed(6, 3) == board.silent(6) == []


def test_an_error_counts_after_the_patience_and_is_forgotten_when_it_goes() -> None:
    board = HealthBoard(["observer"], silence_s=100)
    board.put("observer", Level.ERROR, "stale", 10)
    board.put("observer", Level.ERROR, "still stale", 12)
    assert board.not_ready(10) == ["observer: still stale"]
    assert board.failed(12.9, 3) == []
    assert board.failed(13, 3) == ["observer: still stale"]
    board.put("observer", Level.OK, "", 13)
    board.put("observer", Level.ERROR, "again", 14)
    assert board.failed(16.9, 3) == []


def test_a_node_that_stopped_the_arm_for_a_person_to_act_has_failed_without_patience() -> None:
    board = HealthBoard(["commander"], silence_s=100)
    board.put("commander", Level.ERROR, "emergency stop", 0.0, stopped=True)
    assert board.failed(0.0, patience_s=3.0) == ["commander: emergency stop"]


def test_a_stranger_that_invents_names_does_not_fill_the_memory() -> None:
    board = HealthBoard(["observer"], silence_s=1)
    for number in range(1000):
        board.put(f"invented_{number}", Level.OK, "", 0.0, own=True)
    board.put("observer", Level.OK, "", 0.0)
    assert board.not_ready(0.5) == []
    assert len(board.silent(2.0, required=False)) <= 257


def test_what_no_node_can_be_called_is_passed_over() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    for name in ("", ": tick", "16UC1", "two words", "x" * 200, "knöten", "learner"):
        board.put(name, Level.OK, "", 0, own=True)
    assert board.silent(10, required=False) == ["learner: silent for 10.0 s"]


def test_nodes_that_are_not_required_do_not_count_and_a_warning_is_no_error() -> None:
    board = HealthBoard(["observer"], silence_s=5)
    board.put("learner", Level.ERROR, "dead", 0)
    board.put("observer", Level.WARN, "slow", 0)
    assert board.not_ready(1) == []
