"""Animals: their group, legs, sounds, young and homes, and an order of size."""

from .item import split_words

# fmt: off
GROUPS = {
    "mammal": "dog cat cow horse pig sheep goat lion tiger bear wolf fox rabbit mouse elephant giraffe zebra "
    "monkey kangaroo whale dolphin camel donkey squirrel bat otter beaver panda gorilla leopard buffalo",
    "bird": "eagle owl duck hen rooster swan goose parrot penguin ostrich crow pigeon peacock sparrow turkey "
    "falcon flamingo",
    "fish": "shark salmon trout tuna cod herring carp",
    "reptile": "snake lizard turtle crocodile alligator tortoise",
    "insect": "bee ant butterfly beetle mosquito cricket wasp dragonfly ladybug",
    "amphibian": "frog toad newt salamander",
}
GROUP_OF = {animal: group for group, animals in GROUPS.items() for animal in animals.split()}
LEGS = {
    **dict.fromkeys(
        split_words(
            "dog cat cow horse pig sheep goat lion tiger bear wolf fox rabbit mouse elephant giraffe zebra "
            "camel donkey lizard crocodile frog"
        ),
        "four",
    ),
    **dict.fromkeys(split_words("eagle owl duck hen rooster swan parrot penguin ostrich pigeon"), "two"),
    **dict.fromkeys(split_words("bee ant butterfly beetle mosquito wasp"), "six"),
    **dict.fromkeys(("spider", "scorpion"), "eight"),
    **dict.fromkeys(split_words("snake worm shark salmon whale dolphin"), "no"),
}
SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "sheep": "bleats", "lion": "roars",
    "horse": "neighs", "pig": "oinks", "frog": "croaks", "bee": "buzzes", "owl": "hoots", "wolf": "howls",
    "rooster": "crows", "snake": "hisses", "mouse": "squeaks", "donkey": "brays", "elephant": "trumpets",
    "hen": "clucks", "crow": "caws", "turkey": "gobbles", "bear": "growls", "pigeon": "coos",
    "cricket": "chirps", "goose": "honks",
}
YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "pig": "piglet",
    "goat": "kid", "lion": "cub", "bear": "cub", "duck": "duckling", "hen": "chick", "frog": "tadpole",
    "deer": "fawn", "kangaroo": "joey", "swan": "cygnet", "goose": "gosling", "owl": "owlet",
    "eagle": "eaglet", "elephant": "calf", "whale": "calf", "fox": "cub", "tiger": "cub",
    "spider": "spiderling",
}
HOMES = {
    "bird": "nest", "bee": "hive", "spider": "web", "dog": "kennel", "horse": "stable", "rabbit": "burrow",
    "lion": "den", "hen": "coop", "beaver": "lodge", "ant": "colony", "cow": "barn", "bat": "cave",
}
# From the smallest to the largest, each clearly larger than the one before.
BY_SIZE = split_words(
    "ant bee butterfly mouse squirrel rabbit cat fox wolf lion horse hippo elephant whale"
)
