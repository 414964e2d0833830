"""Neural rankers. They share inputs, loss, training and files; each file adds one network."""
