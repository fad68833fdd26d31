"""A page in the browser: ask about a video, and watch the answer being denoised. What `vidlada page` shows."""
