"""How many images the official training splits hold, known before any is read."""

TRAIN = {
    "digits": 1_438,
    "fashion_mnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "stl10": 105_000,  # with the unlabelled ones
    "tiny_imagenet": 100_000,
    "imagenet100": 126_689,
}

HELD_OUT = {  # of these for validation, where every class has equally many, or where they are counted
    "digits": 143,
    "fashion_mnist": 6_000,
    "cifar10": 5_000,
    "cifar100": 5_000,
    "tiny_imagenet": 10_000,
    "imagenet100": 12_619,  # at least: a tenth of each of 100 classes, rounded
}
STL10 = {"train+unlabeled": 105_000, "unlabeled": 100_000, "train": 5_000}  # of train, by dataset.split
STL10_HELD_OUT = {"all": 500, "fold": 100}  # of these, by the labels that are read
