"""One frame at a time: sampling, the engine with its two rows, and the conversation on top of it."""
