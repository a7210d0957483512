"""What clients are shown of cluster and configurations, as fields that several APIs put into responses."""
