"""A web shop whose visitors' steps reach Kafka through an HTTP collector, and a page with live counts."""
