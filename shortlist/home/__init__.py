"""A home (the folder of a deployment) in operation: locks, workers, switches, alarms, audit log."""
