"""The closed loop: simulated users react to a recommender, which is retrained on their actions."""
