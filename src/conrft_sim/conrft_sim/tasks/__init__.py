"""Tasks of the simulation, one file each."""
