"""Wrong messages and failing partners for the nodes, and what the arm does meanwhile."""
