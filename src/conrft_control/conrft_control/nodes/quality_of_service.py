"""How this package's subscribers differ from the common profiles of conrft_data.topics."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# A recorder that waits for its turn must lose nothing: 20 s of ticks.
RECORD = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)

# Extra topics may be offered either way; best effort takes both.
EXTRA = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)

# Best effort like every sensor, but a press on a button must not be overwritten by its release.
_DEVICE = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)

# In lockstep every tick waits for the operator's answer: none may be lost.
_LOCKSTEP_DEVICE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


# A stop must arrive, also the one that was pressed before this node began, so reliable and latched; and it must be
# heard from a publisher that offers neither.
EMERGENCY_STOP = (
    QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE),
)


def device(lockstep: bool) -> QoSProfile:
    """For the operator's twist and buttons."""
    return _LOCKSTEP_DEVICE if lockstep else _DEVICE
