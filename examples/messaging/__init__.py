"""Messaging: a shop whose services know each other only by topics. README.md says what to look at."""
