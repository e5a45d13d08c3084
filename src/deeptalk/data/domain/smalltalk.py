"""Small talk: many ways to say a thing, one answer."""

from .item import DomainItem, build_item, capitalise, is_held_out

FORMAL_OPENERS = ("", "Please, ", "Assistant, ")
COLLOQUIAL_OPENERS = ("Hey, ", "So, ", "Well, ", "Okay, ", "Oh, ", "Right, ")
# Answer -> ways to say it; the wording after an opener starts with a small letter unless it is "I".
# fmt: off
INTENTS = {
    "Hello, nice to meet you.": ("hello.", "hello there.", "good day to you.", "greetings.", "hi there.",
                                 "nice to meet you.", "pleased to meet you.", "hi.", "hello computer."),
    "Good morning to you.": ("good morning.", "a very good morning.", "good morning to you.",
    "morning, my friend."),
    "Good evening to you.": ("good evening.", "a very good evening.", "good evening to you."),
    "Good night, sleep well.": ("good night.", "I am going to bed now.", "sleep well.",
    "it is time to sleep."),
    "Goodbye, see you soon.": ("goodbye.", "see you later.", "bye for now.", "I have to go now.",
                               "until next time.", "take care.", "see you tomorrow.", "bye bye."),
    "My name is Deep Talk.": ("what is your name?", "who are you?", "tell me your name.",
    "what should I call you?",
                              "do you have a name?", "how are you called?", "may I ask your name?",
                              "what do people call you?"),
    "I am fine, thank you.": ("how are you?", "how are you doing?", "how do you do?", "are you well?",
                              "how are you feeling today?", "how is it going?",
                              "is everything okay with you?",
                              "how are things?"),
    "You are welcome.": ("thank you.", "thank you very much.", "thanks a lot.", "many thanks.", "thanks.",
                         "I am grateful.", "that was helpful.", "thanks for your help."),
    "I can answer simple questions.": ("what can you do?", "how can you help me?", "what are you able to do?",
                                       "what can I ask you?", "what are your skills?",
                                       "what are you good at?",
                                       "tell me what you can do.", "can you help me?"),
    "I am a small speech model.": ("are you a robot?", "are you human?", "are you a person?", "are you real?",
                                   "what are you?", "are you a machine?", "are you a computer?",
                                   "am I talking to a person?"),
    "I was made by a small team.": ("who made you?", "who built you?", "who created you?",
    "where do you come from?",
                                    "who is your maker?", "who programmed you?"),
    "I am still very young.": ("how old are you?", "what is your age?", "when were you born?", "are you old?",
                               "tell me your age.", "when is your birthday?"),
    "I live inside this computer.": ("where do you live?", "where are you?", "where is your home?",
                                     "where are you right now?", "do you have a house?"),
    "I am sorry to hear that.": ("I am sad.", "I feel bad today.", "I had a terrible day.", "I feel lonely.",
                                 "I am not feeling well.", "I lost my job.", "I am very unhappy.",
                                 "my day was awful."),
    "I am glad to hear that.": ("I am happy.", "I feel great today.", "I had a wonderful day.",
    "I am in a good mood.",
                                "life is good.", "I got a new job.", "I am very happy.", "my day was great."),
    "You should take a rest.": ("I am tired.", "I am exhausted.", "I need a break.", "I feel sleepy.",
                                "I did not sleep well.", "I worked all day."),
    "You should eat something.": ("I am hungry.", "I need some food.", "my stomach is empty.",
    "I want to eat.",
                                  "I have not eaten all day.", "I am starving."),
    "You should drink some water.": ("I am thirsty.", "I need a drink.", "my mouth is dry.",
    "I want to drink.",
                                     "I need something to drink."),
    "I like the color blue.": ("what is your favorite color?", "which color do you like?",
    "do you like colors?",
                               "tell me your favorite color.", "which color is the best?"),
    "I like all animals.": ("what is your favorite animal?", "do you like animals?",
    "which animal do you like?",
                            "do you love animals?", "tell me your favorite animal."),
    "I like music very much.": ("do you like music?", "do you enjoy music?", "do you listen to music?",
                                "what do you think of music?", "do you love songs?"),
    "I only speak English.": ("what languages do you speak?", "do you speak French?",
    "can you speak another language?",
                              "do you only speak English?", "do you understand German?",
                              "which languages do you know?"),
    "No, I never sleep.": ("do you sleep?", "do you ever sleep?", "when do you sleep?", "are you ever tired?",
                           "do you need rest?"),
    "No, I do not eat.": ("do you eat?", "what do you like to eat?", "are you hungry?", "do you ever eat?",
                          "do you need food?"),
    "I try to be helpful.": ("are you smart?", "are you clever?", "are you helpful?", "are you useful?",
                             "are you intelligent?"),
    "Thank you, that is kind.": ("you are great.", "you are very clever.", "well done.", "good job.",
    "I like you.",
                                 "you are wonderful.", "that was a good answer.", "you are the best."),
    "I am sorry about that.": ("you are wrong.", "that was a bad answer.", "that is not correct.",
    "you made a mistake.",
                               "I do not like you.", "you are stupid."),
    "Of course, please ask me.": ("can I ask you something?", "I have a question.", "may I ask a question?",
                                  "I want to ask you something.", "are you ready for a question?"),
    "Yes, I can hear you.": ("can you hear me?", "are you listening?", "do you hear me?", "is this working?",
                             "are you there?", "am I loud enough?"),
    "No problem at all.": ("I am sorry.", "please excuse me.", "sorry about that.", "I apologize.",
    "my mistake."),
    "Why did the chicken cross the road?": ("tell me a joke.", "make me laugh.", "do you know a joke?",
                                            "say something funny.", "I want to hear a joke."),
    "Happy birthday to you.": ("it is my birthday.", "today is my birthday.", "I have my birthday today.",
                               "I turn twenty today."),
    "Congratulations, well done.": ("I passed my exam.", "I won the race.", "I finished my work.",
                                    "I got good grades.", "we won the game."),
    "Good luck to you.": ("wish me luck.", "I have an exam tomorrow.", "I am nervous about my test.",
                          "I have an interview tomorrow."),
    "I have no feelings.": ("do you have feelings?", "are you happy?", "are you sad?", "do you feel pain?",
                            "are you ever angry?"),
    "Okay, let us talk.": ("let us talk.", "I want to talk.", "can we talk?", "talk to me.", "I am bored.",
                           "can we have a chat?"),
    "Welcome back, my friend.": ("I am back.", "I am home again.", "here I am again.", "I have returned."),
    "Please say it again.": ("you did not understand me.", "did you understand me?",
    "can you repeat my question?"),
    "Yes, I have time.": ("do you have time?", "are you busy?", "do you have a minute?", "are you free now?"),
    "I do not have a family.": ("do you have a family?", "do you have brothers?", "do you have parents?",
                                "are you married?", "do you have children?"),
    "I wish you a nice day.": ("have a nice day.", "have a good day.", "enjoy your day.",
    "have a great weekend."),
}
# fmt: on

CONTRACTIONS = {
    "what is ": "what's ",
    "who is ": "who's ",
    "how is ": "how's ",
    "I am ": "I'm ",
    "you are ": "you're ",
    "it is ": "it's ",
    "do not ": "don't ",
    "did not ": "didn't ",
    "let us ": "let's ",
    "I have not ": "I haven't ",
    "that is ": "that's ",
    "where is ": "where's ",
}


def build_smalltalk() -> list[DomainItem]:
    """Every way to say everything; formal without an opener, colloquial with one and also contracted."""
    items: dict[str, DomainItem] = {}
    for answer, sayings in INTENTS.items():
        fact = f"smalltalk/{answer.lower().rstrip('.?').replace(' ', '_').replace(',', '')}"
        for saying in sayings:
            spoken = [opener + saying for opener in COLLOQUIAL_OPENERS]
            if (short := contract(saying)) != saying:
                spoken += [opener + short for opener in ("", *COLLOQUIAL_OPENERS)]
            written = [opener + saying for opener in FORMAL_OPENERS]
            for style, texts in (("formal", written), ("colloquial", spoken)):
                for text in map(capitalise, texts):
                    is_eval = style == "colloquial" and is_held_out(text, percent=12)
                    items[text] = build_item(
                        (text, answer), category="smalltalk", style=style, fact=fact, is_eval=is_eval
                    )
    return list(items.values())


def contract(text: str) -> str:
    """The text with the short forms of speech."""
    for full, short in CONTRACTIONS.items():
        text = text.replace(full, short)
    return text
