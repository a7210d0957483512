"""What the examples share: their options and summaries, their processes, their terminal view."""
