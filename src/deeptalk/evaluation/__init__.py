"""Measuring a model: the questions, its answers to them, the judge of its speech, and the scores."""
