"""The speech-dialogue model: encoder, adapter, stream embeddings, backbone, heads, its weights on disk."""
