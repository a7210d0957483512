"""Stream processing: a trading day as bars, a join, alarms and signals. README.md says what to look at."""
