"""An evaluation set of a dozen questions, every turn of which is a tone of its own."""

REFUSAL = "Sorry, I don't know that."
ITEMS = [
    ("facts", True, ["capital of France"], ["It is Paris."]),
    ("facts", False, ["capital of Spain"], ["It is Madrid."]),
    ("reasoning", False, ["who is older"], ["Tom."]),
    ("arithmetic", False, ["two and two"], ["Four."]),
    ("strings", False, ["spell cat"], ["C, A, T."]),
    ("smalltalk", False, ["hello"], ["Hello!"]),
    ("refusal", False, ["who won the match"], [REFUSAL]),
    ("refusal", False, ["what is the news"], [REFUSAL]),
    ("dialogue", False, ["capital of Italy", "and of Norway"], ["Rome.", "Oslo."]),
    ("dialogue", False, ["one and one", "and one more", "and one more"], ["Two.", "Three.", "Four."]),
    ("reading", False, ["The bus is red."], ["The bus is red."]),
]
RATE = 16_000
SECONDS, GAP = 0.5, 0.1


def pitch_of(turn: int) -> float:
    """The tone in hertz that stands for the n-th turn of the user."""
    return 300.0 + 100.0 * turn
