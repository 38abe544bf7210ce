"""Files that are safe to open and survive any kill: container, codec, store. It knows state trees, not learning."""
