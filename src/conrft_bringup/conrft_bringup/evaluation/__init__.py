"""``conrft evaluate``: trials of a policy without intervention, and what their recordings prove."""
