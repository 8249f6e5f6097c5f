"""What an observation, an action, a transition and an episode are; messages to arrays and back; episode bags."""
