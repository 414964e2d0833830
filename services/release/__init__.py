"""The release that a worker serves: choice, loading, swap, heartbeat."""
