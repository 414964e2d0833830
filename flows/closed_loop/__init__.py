"""The closed loop: a simulated world's users live with a recommender, day after day."""
