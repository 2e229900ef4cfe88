from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation import knn

BUDGET = 1 << 24


def gaussian(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 64, generator=generator)


def clustered(n: int, generator: torch.Generator) -> Tensor:
    centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(7))
    noise = torch.randn(n, 64, generator=generator)
    return centres[torch.randint(10, (n,), generator=generator)] + 0.2 * noise


def one_direction(n: int, generator: torch.Generator) -> Tensor:
    """Non-negative features that share most of their length, as those after a ReLU do."""
    return F.relu(3 + torch.randn(n, 64, generator=generator))


def nearly_equal(n: int, generator: torch.Generator) -> Tensor:
    """Differences far below what bfloat16 can distinguish."""
    return torch.linspace(-1, 1, 64) + 1e-3 * torch.randn(n, 64, generator=generator)


def sparse(n: int, generator: torch.Generator) -> Tensor:
    return gaussian(n, generator) * (torch.rand(n, 64, generator=generator) < 0.05)


KINDS = [gaussian, clustered, one_direction, nearly_equal, sparse]
SCANS = [[torch.float32], [torch.bfloat16, torch.float32]]


@pytest.fixture(params=SCANS, ids=["float32", "bfloat16"])
def scans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Both ways to scan, whatever this processor would choose."""
    monkeypatch.setattr(knn, "_scan_precisions", lambda device: request.param)
    return request.param


def pair(kind: Callable[[int, torch.Generator], Tensor], bank: int = 2000, queries: int = 150) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return kind(bank, generator), kind(queries, generator)


def cosines(bank: Tensor, queries: Tensor) -> Tensor:
    return F.normalize(queries.double()) @ F.normalize(bank.double()).T


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_those_of_a_float64_search(kind: Callable[[int, torch.Generator], Tensor], k: int) -> None:
    bank, queries = pair(kind)
    similarity, index = knn.neighbours(bank, queries, k, BUDGET)
    exact = cosines(bank, queries)
    best = exact.topk(k).values
    assert (exact.gather(1, index) - best).abs().max() < 1e-6
    assert (similarity - best).abs().max() < 1e-6
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_scan_never_rules_out_a_neighbour(kind: Callable[[int, torch.Generator], Tensor], dtype: torch.dtype) -> None:
    bank, queries = (F.normalize(x) for x in pair(kind, bank=5000, queries=50))
    for k in (1, 30):
        candidates = knn._Scan(bank, dtype).candidates(queries, k)
        nearest = (queries.double() @ bank.double().T).topk(k).indices
        assert candidates.gather(1, nearest).all()


def test_scan_rules_out_nearly_everything() -> None:
    bank, queries = (F.normalize(x) for x in pair(gaussian, bank=5000, queries=50))
    assert knn._Scan(bank, torch.float32).candidates(queries, 30).sum() < 50 * 30 * 1.5
    assert knn._Scan(bank, torch.bfloat16).candidates(queries, 30).sum() < 50 * 30 * 3


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("kind", KINDS)
def test_answer_does_not_depend_on_the_budget(kind: Callable[[int, torch.Generator], Tensor]) -> None:
    bank, queries = pair(kind, bank=1000, queries=60)
    similarity, index = knn.neighbours(bank, queries, 20, budget=1)
    for budget in (10**5, 10**6, 10**9):
        again = knn.neighbours(bank, queries, 20, budget=budget)
        assert torch.equal(again[0], similarity)
        assert torch.equal(again[1], index)


@pytest.mark.usefixtures("scans")
def test_equal_similarities_go_to_the_lowest_bank_row() -> None:
    distinct, queries = pair(gaussian, bank=300, queries=40)
    bank = distinct.repeat(3, 1)
    _, index = knn.neighbours(bank, queries, 5, BUDGET)
    first = cosines(distinct, queries).topk(2).indices
    copies = torch.stack([first[:, 0] + 300 * copy for copy in range(3)] + [first[:, 1], first[:, 1] + 300], dim=1)
    assert torch.equal(index, copies)


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("row", [torch.zeros(16), torch.arange(16.0)], ids=["zeros", "constant"])
def test_collapsed_bank_gives_its_first_rows(row: Tensor) -> None:
    similarity, index = knn.neighbours(row.expand(3000, 16), row.expand(9, 16), 4, BUDGET)
    assert torch.equal(index, torch.arange(4).expand(9, 4))
    assert torch.allclose(similarity, torch.full((9, 4), float(row.any())))


@pytest.mark.usefixtures("scans")
def test_zero_rows_have_similarity_zero() -> None:
    bank, queries = pair(gaussian, bank=50, queries=4)
    bank[10] = 0
    queries[0] = 0
    similarity, index = knn.neighbours(bank, queries, 50, BUDGET)
    assert torch.equal(similarity[0], torch.zeros(50))
    assert torch.equal(similarity[index == 10], torch.zeros(4))


@pytest.mark.usefixtures("scans")
def test_scaling_rows_changes_nothing() -> None:
    bank, queries = pair(gaussian, bank=400, queries=50)
    plain = knn.neighbours(bank, queries, 7, BUDGET)
    powers = 2.0 ** torch.randint(-90, 90, (400, 1), generator=torch.Generator().manual_seed(1))
    scaled = knn.neighbours(bank * powers, queries * 2.0**-80, 7, BUDGET)
    assert torch.equal(plain[0], scaled[0])
    assert torch.equal(plain[1], scaled[1])


@pytest.mark.usefixtures("scans")
def test_order_of_the_bank_changes_only_row_numbers() -> None:
    bank, queries = pair(clustered, bank=700, queries=50)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    plain, shuffled = knn.neighbours(bank, queries, 9, BUDGET), knn.neighbours(bank[order], queries, 9, BUDGET)
    assert torch.equal(plain[1], order[shuffled[1]])
    assert torch.equal(plain[0], shuffled[0])


def test_training_precision_does_not_reach_the_search() -> None:
    bank, queries = pair(nearly_equal)
    plain = knn.neighbours(bank, queries, 20, BUDGET)
    ambient = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            low = knn.neighbours(bank, queries, 20, BUDGET)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(ambient)
    assert torch.equal(plain[0], low[0])
    assert torch.equal(plain[1], low[1])


def test_votes_are_added_in_the_order_of_the_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(50, 200, generator=generator).mul(20).exp()
    labels = torch.randint(7, (50, 200), generator=generator)
    expected = torch.zeros(50, 7)
    for row in range(50):
        for neighbour in range(200):
            expected[row, labels[row, neighbour]] += weight[row, neighbour]
    assert torch.equal(knn.votes(weight, labels, 7), expected)


def test_search_and_vote_have_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    def nondeterministic(*given: object, **options: object) -> None:
        raise RuntimeError("no deterministic implementation on CUDA")

    bank, queries = pair(clustered, bank=700, queries=50)
    labels = torch.arange(700) % 10
    plain = knn.predict(bank, labels, queries, k=20, temperature=0.1, classes=10, budget=BUDGET)
    for name in ("scatter_add", "scatter_add_", "index_add", "index_add_", "put_", "histc"):
        monkeypatch.setattr(torch.Tensor, name, nondeterministic)
    torch.use_deterministic_algorithms(True)
    try:
        again = knn.predict(bank, labels, queries, k=20, temperature=0.1, classes=10, budget=BUDGET)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(plain, again)


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(("k", "classes"), [(1, 10), (1, 500), (25, 10), (25, 500)])
def test_vote_is_that_of_scikit_learn(k: int, classes: int) -> None:
    bank, queries = pair(gaussian)
    labels = torch.randint(classes, (len(bank),), generator=torch.Generator().manual_seed(3))
    reference = KNeighborsClassifier(
        k,
        algorithm="brute",
        metric="cosine",
        weights=lambda distance: torch.from_numpy((1 - distance) / 0.1).exp().numpy(),
    )
    expected = reference.fit(bank.double().numpy(), labels.numpy()).predict(queries.double().numpy())
    got = knn.predict(bank, labels, queries, k=k, temperature=0.1, classes=classes, budget=BUDGET)
    assert torch.equal(got, torch.from_numpy(expected))


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize(("k", "classes"), [(2, 2), (6, 5), (12, 300)])
def test_equal_votes_go_to_the_lowest_class(k: int, classes: int) -> None:
    draw, ties = random.Random(0), 0
    for _ in range(20):
        labels = [draw.randrange(classes) for _ in range(k)]
        count = Counter(labels)
        most = [label for label in count if count[label] == max(count.values())]
        bank, queries = torch.ones(k, 8), torch.ones(3, 8)  # all equally near, so that every vote weighs 1
        got = knn.predict(bank, torch.tensor(labels), queries, k=k, temperature=0.1, classes=classes, budget=BUDGET)
        assert got.tolist() == [min(most)] * 3
        ties += len(most) > 1
    assert ties


def test_nearest_of_the_bank_is_itself() -> None:
    bank, _ = pair(clustered)
    labels = torch.randint(500, (len(bank),), generator=torch.Generator().manual_seed(3))
    assert torch.equal(knn.predict(bank, labels, bank, k=1, temperature=0.1, classes=500, budget=BUDGET), labels)


def test_small_temperature_is_the_nearest_neighbour() -> None:
    bank, queries = pair(gaussian)
    labels = torch.randint(10, (len(bank),), generator=torch.Generator().manual_seed(3))
    one = knn.predict(bank, labels, queries, k=1, temperature=0.1, classes=10, budget=BUDGET)
    assert torch.equal(knn.predict(bank, labels, queries, k=50, temperature=1e-6, classes=10, budget=BUDGET), one)


@pytest.mark.parametrize("k", [0, 11])
def test_k_outside_the_bank_is_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k}.* 10"):
        knn.neighbours(torch.ones(10, 3), torch.ones(2, 3), k, BUDGET)


def test_unlabelled_bank_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        knn.predict(
            torch.eye(3), torch.tensor([0, -1, 1]), torch.eye(3), k=1, temperature=0.1, classes=2, budget=BUDGET
        )


def test_diverged_features_are_refused() -> None:
    with pytest.raises(UserError, match="diverged"):
        knn.neighbours(torch.eye(3), torch.full((2, 3), torch.nan), 1, BUDGET)
