"""What came out of a run: summary, table and plots, all from the recorded episodes."""
