"""Training by recipes: data, tasks, and runs on the Trainer of transformers. `run` is where to begin reading."""
