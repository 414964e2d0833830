"""The closed loop: users of a simulated world react to a recommender, which learns from them."""
