"""What is asked and answered in the small data folder of these tests."""

QUESTIONS = ("What is one?", "And two?", "Who are you?", "Name a color.")
ANSWERS = ("One.", "Two.", "A voice.", "Red.")
SPEAKERS = ("slt", "rms")


def dialogue(name: str, *pairs: tuple[str, str]) -> dict[str, object]:
    messages = []
    for question, answer in pairs:
        messages += [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
    return {"id": name, "messages": messages}
