"""The one place that knows the names of the suite's own topics and services, and their quality of service.

All names are relative, so that a namespace moves the whole graph. The robot's topics are in the robot's configuration.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

OBSERVATION = "observation"
POLICY_OUTPUT = "policy_output"
ACTION = "action"
REWARD = "reward"
VALUE = "value"
EPISODE_STATE = "episode_state"
WEIGHTS = "weights"
LEARNER_STATUS = "learner_status"
SCENE_STATE = "scene_state"
DIAGNOSTICS = "/diagnostics"
EMERGENCY_STOP = "emergency_stop"

SPACENAV_TWIST = "spacenav/twist"
SPACENAV_JOY = "spacenav/joy"

RESET_SCENE = "reset_scene"
END_EPISODE = "end_episode"
START_EPISODE = "start_episode"
RECOVER_ROBOT = "recover_robot"
CONFIGURE_ROBOT = "configure_robot"
RELABEL_EPISODE = "relabel_episode"
LIST_EPISODES = "list_episodes"
DESCRIBE_EPISODE = "describe_episode"
READ_EPISODE_CHUNK = "read_episode_chunk"
STOP = "stop"
RESET_STOP = "reset_stop"

# Tick messages are reliable: the recorder must get each one. A depth of a hundred bridges ten seconds of a busy
# subscriber, or a second or two in lockstep.
TICK = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)

# What a late node must still get: state, weights, status.
LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

# Who follows an episode's states: one lasts a few hundredths of a second at its shortest, and none may be overwritten
# before it was read. The publisher is LATCHED, so that a late subscriber gets the present state only.
EVERY_STATE = QoSProfile(
    depth=16,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

# A learner that goes on says within milliseconds how it stands with several episodes, and each supervisor waits for the
# word about its own: the newest alone would hide it.
LEARNER_STANDING = QoSProfile(
    depth=50,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

# Sensors are subscribed best effort (REP-2003): a reliable subscriber gets nothing from a best-effort driver, and only
# the newest sample counts.
SENSOR = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)

# Commands to the controller: only the newest counts, and it must arrive.
COMMAND = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
