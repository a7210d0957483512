"""The `ottla` command: it talks to a cluster through the Kafka protocol only."""
