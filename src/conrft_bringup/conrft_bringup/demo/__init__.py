"""``conrft demo``: the whole loop, from demonstrations to a trained policy, as one run folder."""
