"""Tables about words: opposites, plurals, past tenses, and the word pool of the list questions."""

from .item import split_words

# fmt: off
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("tall", "short"), ("fast", "slow"), ("old", "young"), ("happy",
    "sad"),
    ("day", "night"), ("black", "white"), ("up", "down"), ("open", "closed"), ("full", "empty"),
    ("heavy", "light"), ("hard", "soft"), ("rich", "poor"), ("clean", "dirty"), ("wet", "dry"),
    ("loud", "quiet"), ("early", "late"), ("near", "far"), ("high", "low"), ("deep", "shallow"),
    ("wide", "narrow"), ("thick", "thin"), ("strong", "weak"), ("good", "bad"), ("easy", "difficult"),
    ("true", "false"), ("first", "last"), ("inside", "outside"), ("above", "below"), ("before", "after"),
    ("always", "never"), ("love", "hate"), ("win", "lose"), ("buy", "sell"), ("push", "pull"),
    ("start", "stop"), ("begin", "end"), ("laugh", "cry"), ("busy", "idle"), ("give", "take"), ("come", "go"),
    ("arrive", "leave"), ("remember", "forget"), ("north", "south"), ("east", "west"), ("summer", "winter"),
    ("king", "queen"), ("boy", "girl"), ("man", "woman"), ("mother", "father"), ("brother", "sister"),
    ("uncle", "aunt"), ("husband", "wife"), ("prince", "princess"), ("actor", "actress"),
    ("question", "answer"), ("friend", "enemy"), ("war", "peace"), ("life", "death"), ("heaven", "hell"),
    ("safe", "dangerous"), ("smooth", "rough"), ("sharp", "blunt"), ("sweet", "bitter"), ("fresh", "stale"),
    ("cheap", "expensive"), ("simple", "complicated"), ("same", "different"), ("possible", "impossible"),
    ("polite", "rude"), ("brave", "cowardly"), ("lazy", "diligent"), ("clever", "stupid"), ("kind", "cruel"),
    ("beautiful", "ugly"), ("healthy", "sick"), ("alive", "dead"), ("asleep", "awake"),
    ("bright", "dark"), ("modern", "ancient"), ("public", "private"),
    ("success", "failure"), ("victory", "defeat"), ("increase", "decrease"), ("attack", "defend"),
    ("accept", "refuse"), ("allow", "forbid"), ("build", "destroy"), ("borrow", "lend"), ("float", "sink"),
    ("freeze", "melt"), ("lock", "unlock"), ("appear", "disappear"), ("enter", "exit"), ("import", "export"),
    ("include", "exclude"), ("maximum", "minimum"), ("major", "minor"), ("male", "female"),
    ("negative", "positive"), ("noisy", "silent"), ("odd", "even"), ("often", "rarely"),
    ("optimist", "pessimist"), ("past", "future"), ("permanent", "temporary"), ("plus", "minus"),
    ("praise", "blame"), ("proud", "ashamed"), ("raise", "lower"), ("tight", "loose"),
    ("together", "apart"), ("top", "bottom"), ("front", "back"), ("visible", "hidden"), ("wild", "tame"),
    ("wise", "foolish"), ("correct", "wrong"), ("yes", "no"), ("everything", "nothing"),
    ("everybody", "nobody"), ("guilty", "innocent"), ("generous", "greedy"), ("horizontal", "vertical"),
    ("knowledge", "ignorance"), ("master", "servant"), ("more", "less"),
    ("ceiling", "floor"), ("shout", "whisper"), ("sunrise", "sunset"), ("teach", "learn"),
)
PLURALS = {
    "mouse": "mice", "child": "children", "man": "men", "woman": "women", "foot": "feet", "tooth": "teeth",
    "goose": "geese", "sheep": "sheep", "fish": "fish", "person": "people", "leaf": "leaves",
    "knife": "knives",
    "wife": "wives", "wolf": "wolves", "life": "lives", "loaf": "loaves", "shelf": "shelves",
    "baby": "babies",
    "city": "cities", "country": "countries", "lady": "ladies", "party": "parties", "box": "boxes",
    "fox": "foxes", "bus": "buses", "glass": "glasses", "church": "churches", "dish": "dishes",
    "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes", "dog": "dogs", "cat": "cats",
    "book": "books",
    "house": "houses", "tree": "trees", "car": "cars", "apple": "apples", "window": "windows",
    "hand": "hands",
    "horse": "horses", "bird": "birds", "story": "stories", "puppy": "puppies", "watch": "watches",
    "bridge": "bridges", "calf": "calves", "thief": "thieves", "half": "halves", "ox": "oxen", "deer": "deer",
}
PAST = {
    "go": "went", "come": "came", "take": "took", "give": "gave", "make": "made", "find": "found",
    "think": "thought", "bring": "brought", "teach": "taught", "catch": "caught", "speak": "spoke",
    "break": "broke", "drive": "drove", "ride": "rode", "swim": "swam", "sing": "sang", "drink": "drank",
    "begin": "began", "run": "ran", "fall": "fell", "sleep": "slept", "keep": "kept", "feel": "felt",
    "leave": "left", "build": "built", "send": "sent", "spend": "spent", "lose": "lost", "forget": "forgot",
    "stand": "stood", "understand": "understood", "tell": "told", "sell": "sold", "hold": "held",
    "draw": "drew", "fly": "flew", "grow": "grew", "wear": "wore", "steal": "stole", "freeze": "froze",
    "choose": "chose", "shake": "shook", "bite": "bit", "hide": "hid", "dig": "dug", "win": "won",
    "walk": "walked", "talk": "talked", "play": "played", "work": "worked", "help": "helped",
    "dance": "danced",
    "jump": "jumped", "laugh": "laughed", "open": "opened", "paint": "painted", "cook": "cooked",
    "listen": "listened", "become": "became", "eat": "ate", "fight": "fought", "sweep": "swept",
}
# Words of the list and spelling questions: short, common, and hard to mishear.
POOL = split_words(
    "apple banana lemon cherry orange tiger rabbit monkey horse zebra dog cat cow frog lion snake duck "
    "spider "
    "window table pencil paper basket bottle hammer ladder candle mirror pillow carpet bucket garden river "
    "mountain forest desert island bridge castle village market kitchen doctor teacher farmer pilot baker "
    "singer red blue green yellow purple black silver music dinner summer winter thunder number picture "
    "rocket engine tractor bicycle helicopter elephant butterfly crocodile umbrella tomato potato cookie "
    "butter honey pepper guitar piano violin trumpet jacket sweater button pocket finger shoulder elbow"
)
NAMES = split_words(
    "Anna Ben Carl Dora Emma Frank Greta Henry Ivan Julia Kevin Laura Martin Nina Oscar Paula Robert Sophie "
    "Thomas Victor"
)
