"""What the classes are called, in the order of their numbers."""

# As published: in the repository of Fashion-MNIST, in batches.meta and meta of CIFAR, in class_names.txt of STL-10.
NAMES = {
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "fashion_mnist": "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot",
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
        "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
        "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
        "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    ),
    "stl10": "airplane bird car cat deer dog horse monkey ship truck",
}


def class_names(dataset: str) -> tuple[str, ...]:
    """Names of the classes of a published dataset, none where they have no names here."""
    return tuple(name.replace("_", " ") for name in NAMES.get(dataset, "").split())
