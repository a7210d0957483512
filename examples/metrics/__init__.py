"""Host metrics from real agents, watched on the stream: thresholds, anomalies, one alert an incident."""
