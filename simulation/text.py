"""Titles, descriptions, reviews and queries from a small seeded grammar.

Words depend on the topic. The praise in a description depends on the item's quality plus noise: two
in three descriptions of a good item praise it. Texts depend on no other latent attribute. In the
functions, `item` is the row of an item in the world's arrays.
"""

from functools import cached_property

import numpy as np

from simulation.world import World

WORDS: dict[str, tuple[str, ...]] = {
    "hiking": ("boots", "rucksack", "trail map", "walking poles"),
    "coffee": ("espresso pot", "hand grinder", "roasted beans", "filter cone"),
    "jazz": ("trumpet mute", "live record", "songbook", "brush sticks"),
    "gardening": ("secateurs", "seed box", "watering can", "raised bed"),
    "baking": ("bread tin", "sourdough starter", "rolling pin", "cake stand"),
    "cycling": ("gravel tyres", "bike light", "saddle bag", "repair kit"),
    "chess": ("opening book", "wooden board", "tournament clock", "endgame course"),
    "photography": ("tripod", "prime lens", "darkroom set", "camera strap"),
    "sewing": ("linen cloth", "thread box", "pattern book", "tailor's shears"),
    "astronomy": ("star chart", "telescope", "moon filter", "planet atlas"),
    "yoga": ("cork mat", "meditation stool", "breathing course", "stretch band"),
    "camping": ("two-person tent", "gas stove", "sleeping bag", "storm lantern"),
    "painting": ("watercolour set", "sable brush", "canvas roll", "field easel"),
    "robotics": ("servo kit", "line follower", "sensor board", "gripper arm"),
    "fishing": ("fly rod", "lure box", "landing net", "waders"),
    "history": ("castle guide", "old map print", "chronicle", "museum film"),
    "running": ("trail shoes", "interval plan", "sports watch", "race belt"),
    "tea": ("green tea", "iron kettle", "tasting set", "clay pot"),
    "climbing": ("dynamic rope", "chalk bag", "belay course", "finger board"),
    "woodwork": ("block plane", "dovetail saw", "workbench plan", "chisel set"),
    "sailing": ("knot book", "deck shoes", "sea chart", "life vest"),
    "birdwatching": ("field guide", "binoculars", "nest box", "bird song record"),
    "cinema": ("director's cut", "film poster", "silent film", "script book"),
    "board games": ("strategy game", "dice tower", "card sleeves", "party game"),
}
GRADES = ("poor", "plain", "good", "superb")
PRAISE = {
    "poor": ("cheaply made", "thrown together", "soon worn out", "a disappointment to use"),
    "plain": ("plain and simple", "does what it says", "nothing special", "an everyday choice"),
    "good": ("well made", "thought through", "a pleasure to use", "sturdy and dependable"),
    "superb": (
        "made by masters",
        "a joy for years",
        "the best of its kind",
        "beautifully finished",
    ),
}
OPENINGS = ("For lovers of {topic}", "A {thing} for {topic}", "From the world of {topic}")
REVIEWS = {
    1: ("Sent it back: {praise}.", "Regret this {thing}, {praise}."),
    2: ("Expected more of it. To me {praise}.", "Not again: {praise}."),
    3: ("It is all right, {praise}.", "A {thing} like others, {praise}."),
    4: ("Glad to have it: {praise}.", "My {topic} days got better, {praise}."),
    5: ("Wonderful {thing}, {praise}!", "Tell every friend of {topic}: {praise}!"),
}
QUERIES = ("{thing}", "{topic}", "{topic} {thing}", "good {thing}", "{topic} for beginners")
QUERIES_PER_TOPIC = len(QUERIES) * 4
COLOURS = ("red", "green", "blue", "black", "white", "sand")


def topic_names(n: int) -> list[str]:
    """Return n topic names: the 24 names of WORDS, then the same names with a number ('tea 2')."""
    known = list(WORDS)
    return [
        known[i % len(known)] + (f" {i // len(known) + 1}" if i >= len(known) else "")
        for i in range(n)
    ]


class Grammar:
    """Generator of the texts of one world's items. The same world and item give the same texts."""

    def __init__(self, world: World):
        self.topics = topic_names(world.config.catalogue.topics)
        rng = world.rng("text")
        n = world.num_items
        self.topic = world.items.topic
        self.second = world.items.second
        self.brand = world.items.brand
        self.pick = rng.integers(0, 1 << 30, size=(n, 4))
        noisy_quality = world.items.quality + 0.6 * rng.normal(size=n)
        self.grade = np.digitize(noisy_quality, (-0.8, 0.2, 1.1))

    def thing(self, item: int) -> str:
        things = WORDS[self._base(self.topics[self.topic[item]])]
        return things[self.pick[item, 0] % len(things)]

    def title(self, item: int) -> str:
        return f"{brand_name(int(self.brand[item]))} {self.thing(item)} No. {item + 1}"

    def description(self, item: int) -> str:
        topic, second = self.topics[self.topic[item]], self.topics[self.second[item]]
        opening = OPENINGS[self.pick[item, 1] % len(OPENINGS)]
        praise = PRAISE[GRADES[self.grade[item]]]
        text = opening.format(topic=topic, thing=self.thing(item))
        text += f": {praise[self.pick[item, 2] % len(praise)]}."
        return text if second == topic else f"{text} Also for {second}."

    def review(self, item: int, stars: int, pick: int) -> str:
        """Return the text of a review.

        Args:
            stars: rating of the review, 1 to 5.
            pick: any integer; selects the words.
        """
        texts = REVIEWS[stars]
        grade = GRADES[min(3, max(0, stars - 2))]
        praise = PRAISE[grade][pick // 7 % len(PRAISE[grade])]
        topic = self.topics[self.topic[item]]
        return texts[pick % len(texts)].format(praise=praise, topic=topic, thing=self.thing(item))

    @cached_property
    def queries(self) -> list[str]:
        """Possible search queries: QUERIES_PER_TOPIC for topic 0, then for topic 1, and so on."""
        out = []
        for name in self.topics:
            things = WORDS[self._base(name)]
            out += [text.format(topic=name, thing=t) for text in QUERIES for t in things]
        return out

    def colour(self, item: int) -> str:
        return COLOURS[self.pick[item, 3] % len(COLOURS)]

    @staticmethod
    def _base(name: str) -> str:
        return name if name in WORDS else name.rsplit(" ", 1)[0]


def brand_name(brand: int) -> str:
    """Return a brand name of two parts (Lumo, Kato, Vesra), numbered after the first 40."""
    first = ("Lu", "Ka", "Ves", "Tor", "Mi", "Or", "Bel", "Fen")
    last = ("mo", "to", "ra", "dan", "lis")
    n = len(first) * len(last)
    name = first[brand % len(first)] + last[brand // len(first) % len(last)]
    return name if brand < n else f"{name} {brand // n + 1}"
