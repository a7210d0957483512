"""`ottla bench`: load for any Kafka-compatible broker, and what it costs the broker."""
