"""Questions and answers for the sample generator.

Answers do not repeat the words of their question, so that whether they belong together is a matter of meaning and not of shared
words.
"""

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo", "China": "Beijing",
    "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima", "Cuba": "Havana",
    "Norway": "Oslo", "Sweden": "Stockholm", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin",
    "Hungary": "Budapest", "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad", "Thailand": "Bangkok", "Canada": "Ottawa",
    "Australia": "Canberra", "Finland": "Helsinki", "Denmark": "Copenhagen", "Belgium": "Brussels", "Vietnam": "Hanoi",
    "Chile": "Santiago",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "early": "late", "rich": "poor", "hard": "soft", "light": "dark",
    "happy": "sad", "open": "closed", "old": "young", "strong": "weak", "wet": "dry", "full": "empty", "high": "low",
    "clean": "dirty", "cheap": "expensive", "noisy": "quiet", "safe": "dangerous", "thick": "thin", "sharp": "blunt",
}  # fmt: skip

CATEGORIES = {
    "fruits": ("apple", "banana", "cherry", "grape", "mango", "peach", "pear", "plum", "lemon"),
    "animals": ("dog", "cat", "horse", "lion", "tiger", "rabbit", "elephant", "sheep", "wolf"),
    "colours": ("red", "blue", "green", "yellow", "purple", "orange", "brown", "pink", "grey"),
    "planets": ("Mercury", "Venus", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune", "Earth"),
    "musical instruments": ("piano", "violin", "guitar", "flute", "drum", "trumpet", "cello", "harp"),
    "pieces of furniture": ("chair", "table", "sofa", "bed", "desk", "shelf", "wardrobe", "stool"),
    "vehicles": ("car", "bus", "train", "bicycle", "truck", "boat", "aeroplane", "motorcycle"),
    "vegetables": ("carrot", "potato", "onion", "cabbage", "spinach", "pea", "leek", "broccoli"),
    "sports": ("football", "tennis", "basketball", "swimming", "hockey", "golf", "rugby", "boxing"),
    "chemical elements": ("hydrogen", "oxygen", "carbon", "iron", "gold", "helium", "sodium", "copper"),
    "jobs": ("teacher", "doctor", "baker", "lawyer", "farmer", "nurse", "pilot", "carpenter"),
    "clothes": ("shirt", "coat", "hat", "trousers", "sock", "scarf", "glove", "dress"),
}

EXPLANATIONS = {
    "How do bees make honey?": (
        "They gather nectar from flowers.",
        "Back in the hive it is stored in wax combs.",
        "Fanning wings dry it until thick.",
    ),
    "Why does it rain?": (
        "Water vapour rises and cools.",
        "Clouds form from tiny droplets.",
        "When the drops grow heavy, they fall.",
    ),
    "How do I boil an egg?": (
        "Bring a pan of water to a simmer.",
        "Lower it in gently and wait eight minutes.",
        "Cool under the tap, then peel the shell.",
    ),
    "How does a bicycle stay upright?": (
        "The rider steers into the fall.",
        "Front wheel geometry helps it self-correct.",
        "Pedalling faster makes balancing easier.",
    ),
    "Why is sleep important?": (
        "Tired brains forget what they learned.",
        "The body repairs itself at night.",
        "Going without rest weakens immunity.",
    ),
    "How do I grow tomatoes?": (
        "Sow the seeds indoors in spring.",
        "Tie the stems to a stake in full sun.",
        "Water the roots and feed the plants weekly.",
    ),
    "What causes the tides?": (
        "The Moon's gravity pulls on the sea.",
        "Oceans bulge on two sides of the globe.",
        "The Sun adds a weaker pull.",
    ),
    "How can I save money?": (
        "Write a monthly budget.",
        "Cancel subscriptions you never use.",
        "Put a fixed sum from each pay cheque in the bank.",
    ),
    "How do vaccines work?": (
        "They show the immune system a harmless piece of a germ.",
        "Antibodies are made in response.",
        "Later infections are fought off quickly.",
    ),
    "Why do leaves change colour in autumn?": (
        "Trees stop producing chlorophyll as days shorten.",
        "The green fades away.",
        "Yellow and red pigments then show.",
    ),
    "How do I train a puppy?": (
        "Reward good behaviour with treats.",
        "Keep the lessons short.",
        "Take the young dog outside after every meal.",
    ),
    "What is inflation?": (
        "Prices across the economy go up.",
        "Each coin buys less than before.",
        "Central banks raise interest rates against it.",
    ),
    "How does a refrigerator work?": (
        "A compressor pumps a coolant round.",
        "It evaporates and takes heat from the inside.",
        "Coils at the back get warm.",
    ),
    "How can I learn to swim?": (
        "Start by floating in a shallow pool.",
        "Practise kicking while holding the edge.",
        "Breathe out with your face under water.",
    ),
    "Why do we have leap years?": (
        "Earth needs about 365 and a quarter days to orbit the Sun.",
        "The quarters add up.",
        "February gets an extra day.",
    ),
    "How do I bake bread?": (
        "Mix flour, yeast, salt and water.",
        "Knead the dough and let it rise.",
        "Put the loaf in a hot oven.",
    ),
}

FILLERS = (
    "I hope this helps.", "Let me know if you would like more detail.", "Feel free to ask a follow-up question.",
    "That is the short version of it.", "There is more to say if you are curious.", "This is what most people would tell you.",
    "I have kept it simple here.", "You can check this in any good reference.",
)  # fmt: skip

REFUSALS = ("I'm sorry, but I can't help with that.", "As an AI model, I am not able to answer this.")
