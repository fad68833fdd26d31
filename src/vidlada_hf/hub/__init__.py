"""What moves between disk, the Hub and us: the official checkpoint, a folder for the Hub, the model card."""
