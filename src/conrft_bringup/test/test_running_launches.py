"""Launch files run with real processes: output, respawn, the end of a launch, and what is left of it (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch_files import add_package, is_alive, run, write

from conrft_bringup.launch_runner.errors import LaunchError
from conrft_bringup.launch_runner.process_supervisor import GracePeriods, ProcessSupervisor

PACKAGE = Path(__file__).parents[1]


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


def pid_in(path: Path) -> int:
    wait_for(lambda: path.is_file() and path.read_text().strip())
    return int(path.read_text())


def start_up(path: Path, *options: str) -> subprocess.Popen[str]:
    """``conrft up`` as a person starts it."""
    code = "import sys; from conrft_bringup.command import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGE}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code, "up", str(path), "--log-file", str(path.parent / "launch.log"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_every_line_carries_the_name_and_number_of_its_process(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - executable: {cmd: sh -c 'echo one; echo two >&2; printf three', output: screen}
          - executable: {cmd: echo four, name: other, output: screen}
          - log: {message: started}
        """,
    )
    result, lines = run(path)
    assert {"[sh-1] one", "[sh-1] two", "[sh-1] three", "[other-2] four", "[INFO] [launch.user]: started"} <= set(lines)
    assert any(line.startswith("[INFO] [sh-1]: process started with pid [") for line in lines)
    assert any(line.startswith("[INFO] [other-2]: process has finished cleanly [pid ") for line in lines)
    assert (result.exit_code, result.failed) == (0, [])


def test_output_log_shows_only_what_a_process_writes_to_stderr(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{executable: {cmd: sh -c 'echo quiet; echo loud >&2'}}]")
    _, lines = run(path)
    assert "[sh-1] loud" in lines
    assert "[sh-1] quiet" not in lines


def test_the_log_file_gets_every_line(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{executable: {cmd: echo quiet}}]")
    up = start_up(path)
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 0
    assert "[echo-1] quiet" not in output
    assert "[echo-1] quiet" in (tmp_path / "launch.log").read_text()


def test_a_megabyte_of_output_arrives_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{executable: {cmd: seq 150000, output: screen}}]")
    _, lines = run(path)
    assert [line for line in lines if line.startswith("[seq-1]")] == [
        f"[seq-1] {number}" for number in range(1, 150001)
    ]


def test_nodes_are_started_from_their_package_with_environment_and_directory(tmp_path: Path) -> None:
    add_package(tmp_path / "prefix", "pkg", node='echo "$COLOUR $@"')
    path = write(
        tmp_path,
        """
        launch:
          - set_env: {name: COLOUR, value: red}
          - node: {pkg: pkg, exec: node, name: eye, args: --x, output: screen}
          - executable: {cmd: pwd, cwd: /, output: screen}
        """,
    )
    _, lines = run(path, prefix=tmp_path / "prefix")
    assert "[node-1] red --x --ros-args -r __node:=eye" in lines
    assert "[pwd-2] /" in lines


def test_nothing_starts_when_a_later_part_of_the_file_is_wrong(tmp_path: Path) -> None:
    path = write(
        tmp_path, f"launch: [{{executable: {{cmd: touch {tmp_path}/made}}}}, {{node: {{pkg: gone, exec: x}}}}]"
    )
    with pytest.raises(LaunchError):
        run(path)
    assert not (tmp_path / "made").exists()


def test_a_required_process_that_fails_ends_the_launch_with_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - executable: {cmd: sleep 100}
          - executable: {cmd: sh -c 'sleep 0.2; exit 3', on_exit: shutdown}
        """,
    )
    begin = time.monotonic()
    result, lines = run(path)
    assert time.monotonic() - begin < 5
    assert (result.exit_code, result.required_failed, result.failed) == (1, True, [("sh-2", 3)])
    assert any("process has died" in line and "exit code 3" in line for line in lines)
    assert "[INFO] [launch]: shutting down: required process [sh-2] has died with exit code 3" in lines


def test_a_required_process_that_finishes_ends_the_launch_well(tmp_path: Path) -> None:
    path = write(tmp_path, "launch: [{executable: {cmd: sleep 100}}, {executable: {cmd: 'true', on_exit: shutdown}}]")
    result, _ = run(path)
    assert (result.exit_code, result.reason) == (0, "required process [true-2] has finished")


def test_another_process_that_fails_does_not_end_the_launch(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - executable: {cmd: 'false'}
          - executable: {cmd: sh -c 'sleep 0.3; echo still here', output: screen, on_exit: shutdown}
        """,
    )
    result, lines = run(path)
    assert "[sh-2] still here" in lines
    assert (result.exit_code, result.failed) == (0, [("false-1", 1)])


def test_a_launch_that_ends_by_itself_reports_a_failure(tmp_path: Path) -> None:
    result, _ = run(write(tmp_path, "launch: [{executable: {cmd: 'false'}}]"))
    assert result.exit_code == 1


def test_a_program_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    result, lines = run(write(tmp_path, "launch: [{executable: {cmd: /nowhere/at/all, on_exit: shutdown}}]"))
    assert result.exit_code == 1
    assert any("cannot be started" in line and "/nowhere/at/all" in line for line in lines)


def test_a_process_is_started_again_after_its_delay_and_keeps_its_number(tmp_path: Path) -> None:
    program = script(tmp_path, "program", f"echo x >> {tmp_path}/starts; exit 1")
    path = write(tmp_path, f"launch: [{{executable: {{cmd: {program}, respawn: 'true', respawn_delay: 0.3}}}}]")

    def end_after_three(supervisor: ProcessSupervisor) -> None:
        if (tmp_path / "starts").is_file() and len((tmp_path / "starts").read_text().split()) >= 3:
            supervisor.shut_down("enough")

    begin = time.monotonic()
    result, lines = run(path, idle=end_after_three, idle_period=0.05)
    assert time.monotonic() - begin >= 2 * 0.3
    assert sum("[program-1]: process started" in line for line in lines) >= 3
    assert (result.exit_code, result.failed) == (0, [])
    assert result.deaths["program-1"] >= 2


def test_a_timer_runs_its_actions_later_in_the_scope_of_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        launch:
          - let: {name: x, value: before}
          - timer: {period: 0.3, children: [{executable: {cmd: echo $(var x), output: screen}}]}
          - let: {name: x, value: after}
        """,
    )
    begin = time.monotonic()
    _, lines = run(path)
    assert time.monotonic() - begin >= 0.3
    assert "[echo-1] before" in lines


def test_a_timer_whose_actions_are_wrong_ends_the_launch_with_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "launch: [{timer: {period: 0.1, children: [{log: {message: $(var x)}}]}}, {executable: {cmd: sleep 100}}]",
    )
    result, lines = run(path)
    assert result.exit_code == 1
    assert any("no argument or variable is called 'x'" in line for line in lines)


def test_the_shutdown_action_ends_the_launch(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "launch: [{executable: {cmd: sleep 100}}, {shutdown: {reason: told so}}, {executable: {cmd: echo never}}]",
    )
    result, lines = run(path)
    assert (result.exit_code, result.reason) == (0, "told so")
    assert not any("echo" in line for line in lines)


def test_what_ignores_sigint_gets_sigterm_and_what_ignores_both_is_killed(tmp_path: Path) -> None:
    stubborn = script(tmp_path, "stubborn", "trap '' INT; while true; do sleep 0.1; done")
    dead_set = script(tmp_path, "dead_set", "trap '' INT TERM; while true; do sleep 0.1; done")
    path = write(
        tmp_path,
        f"""
        launch:
          - executable: {{cmd: {stubborn}}}
          - executable: {{cmd: {dead_set}}}
          - timer: {{period: 0.3, children: [{{shutdown: {{}}}}]}}
        """,
    )
    begin = time.monotonic()
    _, lines = run(path, grace=GracePeriods(terminate=0.4, kill=0.4))
    assert 1.0 < time.monotonic() - begin < 4.0
    assert any("[stubborn-1]" in line and "exit code -15" in line for line in lines)
    assert any("[dead_set-2]" in line and "exit code -9" in line for line in lines)
    assert "[ERROR] [dead_set-2]: has not ended yet, sending SIGKILL" in lines


def test_what_a_process_has_started_itself_ends_with_it(tmp_path: Path) -> None:
    program = script(tmp_path, "program", f"sleep 100 & echo $! > {tmp_path}/child; exit 0")
    run(write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]"))
    wait_for(lambda: not is_alive(pid_in(tmp_path / "child")))  # SIGKILL is not waited for: it is nobody's child


def test_ctrl_c_ends_every_process_with_one_sigint(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "program",
        f"trap 'echo INT >> {tmp_path}/got; exit 0' INT; echo $$ > {tmp_path}/pid; while true; do sleep 0.1; done",
    )
    up = start_up(write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]"))
    pid = pid_in(tmp_path / "pid")
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 0
    assert (tmp_path / "got").read_text() == "INT\n"
    assert not is_alive(pid)
    assert "shutting down: received SIGINT" in output


def test_a_second_and_a_third_ctrl_c_insist(tmp_path: Path) -> None:
    program = script(tmp_path, "program", f"trap '' INT TERM; echo $$ > {tmp_path}/pid; while true; do sleep 0.1; done")
    up = start_up(write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]"), "--grace", "60")
    pid = pid_in(tmp_path / "pid")
    begin = time.monotonic()
    for _ in range(3):
        up.send_signal(signal.SIGINT)
        time.sleep(0.3)
    output, _ = up.communicate(timeout=120)
    assert time.monotonic() - begin < 10
    assert not is_alive(pid)
    assert "sending SIGTERM" in output and "sending SIGKILL" in output


def test_sigterm_ends_a_launch_as_ctrl_c_does(tmp_path: Path) -> None:
    program = script(tmp_path, "program", f"echo $$ > {tmp_path}/pid; exec sleep 100")
    up = start_up(write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]"))
    pid = pid_in(tmp_path / "pid")
    up.terminate()
    up.communicate(timeout=120)
    assert not is_alive(pid)


def test_no_orphan_stays_when_the_runner_itself_is_killed(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "program",
        f"sleep 100 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/pid; trap '' INT; wait; sleep 100",
    )
    up = start_up(write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]"))
    pids = [pid_in(tmp_path / "pid"), pid_in(tmp_path / "child")]
    assert all(is_alive(pid) for pid in pids)
    up.kill()
    up.communicate(timeout=120)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_no_process_stays_when_the_caller_of_the_runner_fails(tmp_path: Path) -> None:
    program = script(tmp_path, "program", f"echo $$ > {tmp_path}/pid; exec sleep 100")
    path = write(tmp_path, f"launch: [{{executable: {{cmd: {program}}}}}]")

    def fail(_: ProcessSupervisor) -> None:
        pid_in(tmp_path / "pid")
        raise RuntimeError("the caller's fault")

    with pytest.raises(RuntimeError, match="caller"):
        run(path, idle=fail, idle_period=0.1)
    assert not is_alive(pid_in(tmp_path / "pid"))


def test_the_idle_call_sees_what_runs_and_can_end_the_launch(tmp_path: Path) -> None:
    seen: list[dict[str, int]] = []

    def look(supervisor: ProcessSupervisor) -> None:
        seen.append(supervisor.running())
        supervisor.shut_down("seen enough")

    result, _ = run(write(tmp_path, "launch: [{executable: {cmd: sleep 100}}]"), idle=look, idle_period=0.2)
    assert list(seen[0]) == ["sleep-1"]
    assert (result.reason, result.interrupted) == ("seen enough", False)


def test_a_reader_that_goes_away_does_not_disturb_the_processes(tmp_path: Path) -> None:
    path = write(
        tmp_path, f"launch: [{{executable: {{cmd: sh -c 'seq 20000; touch {tmp_path}/done', output: screen}}}}]"
    )
    up = start_up(path)
    assert up.stdout is not None
    up.stdout.readline()
    up.stdout.close()
    assert up.wait(timeout=120) == 0
    assert (tmp_path / "done").exists()


def test_what_is_printed_after_the_reader_has_gone_is_no_error() -> None:
    code = """
from conrft_bringup.launch_runner.output import LaunchOutput
LaunchOutput(None).line("node-1", "something", shown=True)
print("something else", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 0


def test_a_full_disk_ends_the_log_and_no_process(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "program",
        f"trap 'echo INT > {tmp_path}/got; exit 0' INT; echo $$ > {tmp_path}/pid; while sleep 0.1; do echo on; done",
    )
    path = write(tmp_path, f"launch: [{{executable: {{cmd: {program}, output: screen}}}}]")
    up = start_up(path, "--log-file", "/dev/full")
    pid_in(tmp_path / "pid")
    time.sleep(0.5)
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 0
    assert (tmp_path / "got").read_text() == "INT\n", "it was asked to end, not killed"
    assert output.count("[program-1] on") > 2
    assert output.count("the log is not written any more: [Errno 28] No space left on device") == 1


def test_a_log_that_cannot_be_begun_is_said_and_the_launch_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = write(tmp_path, "launch: [{log: {message: started}}]")
    up = start_up(path, "--log-file", str(tmp_path / "file/launch.log"))
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 0
    assert "the log is not written any more" in output and "[INFO] [launch.user]: started" in output
