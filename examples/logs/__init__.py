"""Log gathering: the logs of several programs in one topic, searched, summed up and kept. See README.md."""
