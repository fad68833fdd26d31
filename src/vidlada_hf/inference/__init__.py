"""One question about one video, as a user asks it."""
