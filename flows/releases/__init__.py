"""Work of promotion and monitoring: gates, workers' releases, and the service as a process."""
