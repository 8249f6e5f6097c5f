"""``conrft bench suite``: a method on many tasks and seeds, laid out like the paper's table."""
