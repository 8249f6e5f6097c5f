"""What a person sees in rviz, Foxglove or PlotJuggler, of a running graph and of a played-back bag alike."""
