"""Short videos of moving shapes with questions whose answers are known."""
