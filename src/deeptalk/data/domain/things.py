"""Tables of everyday things: colors, kinds, foods, jobs, tools, places, counts."""

from .item import split_words

# fmt: off
COLORS = {
    "a banana": "yellow", "a lemon": "yellow", "the sun": "yellow", "corn": "yellow", "a sunflower": "yellow",
    "grass": "green", "a leaf": "green", "a cucumber": "green", "broccoli": "green", "spinach": "green",
    "a lime": "green", "a frog": "green", "a crocodile": "green", "lettuce": "green", "a pea": "green",
    "the sky": "blue", "the sea": "blue", "a blueberry": "blue", "a sapphire": "blue", "the ocean": "blue",
    "blood": "red", "a tomato": "red", "a strawberry": "red", "a cherry": "red", "a ruby": "red",
    "a fire truck": "red", "ketchup": "red", "a stop sign": "red", "a raspberry": "red", "lava": "red",
    "snow": "white", "milk": "white", "salt": "white", "sugar": "white", "chalk": "white", "cotton": "white",
    "a swan": "white", "a polar bear": "white", "rice": "white", "a snowman": "white", "cream": "white",
    "coal": "black", "tar": "black", "a crow": "black", "ink": "black", "the night": "black",
    "a panther": "black",
    "an orange": "orange", "a carrot": "orange", "a pumpkin": "orange", "an apricot": "orange",
    "a flamingo": "pink", "a pig": "pink", "a plum": "purple", "lavender": "purple", "an eggplant": "purple",
    "chocolate": "brown", "coffee": "brown", "mud": "brown", "wood": "brown", "a potato": "brown",
    "a bear": "brown", "an elephant": "gray", "a dolphin": "gray", "concrete": "gray", "ash": "gray",
    "an emerald": "green", "butter": "yellow", "a canary": "yellow", "a violet": "purple",
}
FOODS = {
    "fruit": "apple banana pear peach plum cherry grape lemon lime mango orange melon strawberry raspberry "
    "blueberry pineapple apricot kiwi fig coconut papaya",
    "vegetable": "carrot potato onion cabbage lettuce spinach broccoli radish turnip leek celery "
    "cauliflower beetroot parsnip asparagus",
}
MASS_FOODS = ("lettuce", "spinach", "broccoli", "celery", "cauliflower", "asparagus")
KINDS = {
    "musical instrument": "violin piano guitar flute trumpet drum harp cello clarinet saxophone banjo tuba",
    "flower": "rose tulip daisy lily orchid sunflower daffodil poppy",
    "tree": "oak pine maple willow birch elm cedar palm",
    "vehicle": "car bus truck train bicycle tractor motorcycle scooter taxi tram",
    "piece of furniture": "chair table sofa bed desk cupboard wardrobe bookcase bench stool",
    "piece of clothing": "shirt coat sweater jacket skirt dress sock scarf glove hat",
    "shape": "circle triangle square rectangle pentagon hexagon oval cube",
    "tool": "hammer saw screwdriver wrench drill shovel rake axe",
    "building": "castle church tower hotel palace cottage skyscraper cathedral",
    "gemstone": "diamond ruby emerald sapphire topaz opal",
    "boat": "canoe ferry kayak yacht raft gondola",
    "dance": "waltz tango polka samba rumba",
    "toy": "doll puzzle kite yoyo teddy",
}
METALS_AND_MASS = {
    "metal": "gold silver iron copper tin steel aluminum nickel zinc platinum",
    "drink": "water milk juice tea coffee lemonade cider cocoa",
    "sport": "tennis soccer hockey golf rugby cricket baseball basketball volleyball badminton",
    "language": "French German Spanish Italian Russian Japanese Greek Polish",
    "game": "chess poker checkers bingo backgammon",
    "fabric": "silk velvet linen denim nylon",
    "spice": "pepper cinnamon ginger nutmeg saffron",
}
WORKPLACES = {
    "teacher": "in a school", "doctor": "in a hospital", "nurse": "in a hospital", "baker": "in a bakery",
    "cook": "in a kitchen", "chef": "in a restaurant", "waiter": "in a restaurant", "farmer": "on a farm",
    "pilot": "in a plane", "sailor": "on a ship", "librarian": "in a library", "judge": "in a court",
    "mechanic": "in a garage", "scientist": "in a laboratory", "actor": "in a theater", "miner": "in a mine",
    "cashier": "in a shop", "secretary": "in an office", "professor": "at a university",
    "soldier": "in the army", "gardener": "in a garden", "priest": "in a church",
    "pharmacist": "in a pharmacy", "banker": "in a bank", "astronaut": "in a spaceship",
    "butcher": "in a butcher shop", "blacksmith": "in a forge", "clown": "in a circus",
    "painter": "in a studio", "lifeguard": "at a swimming pool", "firefighter": "at a fire station",
    "receptionist": "in a hotel", "zookeeper": "in a zoo", "forester": "in a forest",
}
DUTIES = {
    "baker": "bakes bread", "teacher": "teaches students", "pilot": "flies planes", "writer": "writes books",
    "painter": "paints pictures", "singer": "sings songs", "farmer": "grows food", "tailor": "makes clothes",
    "fisherman": "catches fish", "carpenter": "works with wood", "dentist": "takes care of teeth",
    "gardener": "takes care of plants", "firefighter": "puts out fires", "mechanic": "repairs cars",
    "chef": "cooks meals", "barber": "cuts hair", "plumber": "repairs pipes", "photographer": "takes photos",
    "architect": "designs buildings", "dancer": "dances on a stage", "shepherd": "looks after sheep",
    "builder": "builds houses", "postman": "delivers letters", "doctor": "treats sick people",
    "composer": "writes music", "beekeeper": "keeps bees", "florist": "sells flowers",
}
USES = {
    "knife": "cutting", "hammer": "hitting nails", "broom": "sweeping", "pen": "writing",
    "spoon": "eating soup",
    "key": "opening doors", "lamp": "giving light", "oven": "baking", "shovel": "digging", "needle": "sewing",
    "camera": "taking photos", "umbrella": "keeping dry", "clock": "telling time", "towel": "drying",
    "pillow": "resting your head", "comb": "combing hair", "ladder": "climbing", "phone": "calling people",
    "ruler": "measuring length", "telescope": "looking at stars", "thermometer": "measuring temperature",
    "fridge": "keeping food cold", "toothbrush": "brushing teeth", "soap": "washing",
    "bucket": "carrying water",
    "saw": "cutting wood", "rope": "tying things", "scale": "measuring weight", "compass": "finding north",
    "microscope": "seeing tiny things", "whistle": "making a loud noise", "map": "finding the way",
    "wallet": "carrying money", "candle": "giving light", "brush": "painting", "kettle": "boiling water",
    "calculator": "doing sums", "bicycle": "riding", "eraser": "removing pencil marks",
    "mirror": "seeing yourself",
}
MASS_TOOLS = ("soap",)
BODY = {
    "see": "eyes", "hear": "ears", "smell": "nose", "taste": "tongue", "walk": "legs", "think": "brain",
    "chew": "teeth", "breathe": "lungs", "kick": "feet", "wave": "hands", "kiss": "lips", "point": "finger",
}
PLACES = {
    "cook": "in the kitchen", "sleep": "in the bedroom", "swim": "in a pool", "borrow books": "in a library",
    "watch a movie": "in a cinema", "see a play": "in a theater", "buy medicine": "in a pharmacy",
    "catch a train": "at a train station", "catch a plane": "at an airport",
    "mail a letter": "at a post office",
    "learn": "in a school", "take a shower": "in the bathroom", "park a car": "in a garage",
    "see wild animals": "in a zoo", "look at old art": "in a museum", "buy bread": "in a bakery",
    "plant flowers": "in a garden", "eat out": "in a restaurant", "keep money": "in a bank",
    "buy fuel": "at a gas station", "build sand castles": "on a beach", "ski": "on a mountain",
}
# (things, container) -> number in words.
COUNTS = {
    ("days", "a week"): "seven", ("hours", "a day"): "twenty four", ("months", "a year"): "twelve",
    ("minutes", "an hour"): "sixty", ("seconds", "a minute"): "sixty", ("weeks", "a year"): "fifty two",
    ("seasons", "a year"): "four", ("eggs", "a dozen"): "twelve", ("years", "a decade"): "ten",
    ("years", "a century"): "one hundred", ("cents", "a dollar"): "one hundred",
    ("letters", "the alphabet"): "twenty six", ("planets", "the solar system"): "eight",
    ("colors", "a rainbow"): "seven", ("players", "a soccer team"): "eleven", ("days",
    "January"): "thirty one",
    ("days", "March"): "thirty one", ("days", "April"): "thirty", ("days", "May"): "thirty one",
    ("days", "June"): "thirty", ("days", "July"): "thirty one", ("days", "August"): "thirty one",
    ("days", "September"): "thirty", ("days", "October"): "thirty one", ("days", "November"): "thirty",
    ("days", "December"): "thirty one", ("days", "a weekend"): "two",
}
PARTS = {
    ("wheels", "car"): "four", ("wheels", "bicycle"): "two", ("wheels", "tricycle"): "three",
    ("wheels", "unicycle"): "one", ("sides", "triangle"): "three", ("sides", "square"): "four",
    ("sides", "rectangle"): "four", ("sides", "pentagon"): "five", ("sides", "hexagon"): "six",
    ("sides", "octagon"): "eight", ("strings", "violin"): "four", ("strings", "guitar"): "six",
    ("fingers", "hand"): "five", ("toes", "foot"): "five", ("faces", "cube"): "six", ("arms",
    "octopus"): "eight",
    ("keys", "piano"): "eighty eight", ("strings", "cello"): "four",
    ("wings", "butterfly"): "four", ("wings", "bird"): "two", ("arms", "starfish"): "five",
}
MATERIALS = {
    "paper": "wood", "cheese": "milk", "wine": "grapes", "glass": "sand", "bread": "flour",
    "chocolate": "cocoa beans", "tofu": "soybeans", "cider": "apples", "raisins": "grapes",
    "leather": "animal skin",
    "jam": "fruit", "yogurt": "milk", "popcorn": "corn", "bricks": "clay",
    "butter": "cream", "candles": "wax", "tires": "rubber", "coins": "metal",
}
PLURAL_MATERIALS = ("raisins", "bricks", "candles", "tires", "coins")
FAMILY = {
    "mother's brother": "uncle", "mother's sister": "aunt", "father's father": "grandfather",
    "father's mother": "grandmother", "sister's son": "nephew", "brother's daughter": "niece",
    "uncle's son": "cousin", "wife's mother": "mother in law", "son's son": "grandson",
    "daughter's daughter": "granddaughter",
}
PLANETS = split_words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune")
DAYS = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = split_words(
    "January February March April May June July August September October November December"
)
SEASONS = split_words("spring summer autumn winter")
LETTERS = split_words("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z")
