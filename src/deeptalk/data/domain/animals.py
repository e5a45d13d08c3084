"""Animals: their group, legs, sounds, young and homes, and an order of size."""

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
        "dog cat cow horse pig sheep goat lion tiger bear wolf fox rabbit mouse elephant giraffe zebra camel "
        "donkey lizard crocodile frog".split(), "four"),
    **dict.fromkeys("eagle owl duck hen rooster swan parrot penguin ostrich pigeon".split(), "two"),
    **dict.fromkeys("bee ant butterfly beetle mosquito wasp".split(), "six"),
    **dict.fromkeys(("spider", "scorpion"), "eight"),
    **dict.fromkeys("snake worm shark salmon whale dolphin".split(), "no"),
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
    "eagle": "eaglet", "elephant": "calf", "whale": "calf", "fox": "cub", "tiger": "cub", "spider": "spiderling",
}
HOMES = {
    "bird": "nest", "bee": "hive", "spider": "web", "dog": "kennel", "horse": "stable", "rabbit": "burrow",
    "lion": "den", "hen": "coop", "beaver": "lodge", "ant": "colony", "cow": "barn", "bat": "cave",
}
# From the smallest to the largest, each clearly larger than the one before.
BY_SIZE = (
    "ant bee butterfly mouse rat squirrel rabbit cat fox wolf lion horse hippo elephant whale"
).split()
