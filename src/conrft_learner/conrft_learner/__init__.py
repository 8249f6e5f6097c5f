"""The learner of ConRFT: critics, objectives, replay, trainer and the node around them."""
