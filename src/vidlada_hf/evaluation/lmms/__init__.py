"""VidLaDA in lmms-eval: the model that it runs, and benchmarks with their official settings (`vidlada eval`)."""
