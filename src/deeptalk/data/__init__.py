"""Data: the domain we write, the speech we synthesise, and manifests turned into batches."""
