"""``conrft doctor``: what has to be right before an arm moves, each finding with its cure."""
