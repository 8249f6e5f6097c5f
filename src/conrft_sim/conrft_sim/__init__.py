"""MuJoCo stand-in for a Franka arm with two cameras, its tasks, and a scripted operator."""
