"""Gates, acknowledgement by workers, and the service's process."""
