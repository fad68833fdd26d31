"""Questions about videos: one video as a user asks about it, and lists of them by the thousand."""
