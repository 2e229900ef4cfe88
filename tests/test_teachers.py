"""The teacher's arithmetic against the equations of BYOL and CLBO, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ssl_bench.teachers import add_proximal_gradient, follow_buffers, step_back, step_towards, twin


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def values(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize("lam", [0.3, 0.01])
def test_bilevel_steps_with_k1_are_an_exponential_moving_average_in_every_epoch(lam: float) -> None:
    tau = 0.05 / lam
    student, bilevel = network(0), network(1)
    average = values(bilevel)
    eta = 1 - tau * lam
    for step in range(12):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step), dtype=p.dtype))
        epoch = step // 4 + 1
        step_towards(bilevel, student, (tau / epoch) * (lam * epoch))
        average = [eta * a + (1 - eta) * p for a, p in zip(average, student.parameters(), strict=True)]
        for mine, expected in zip(bilevel.parameters(), average, strict=True):
            torch.testing.assert_close(mine, expected)


def test_a_full_step_copies_and_a_zero_step_freezes() -> None:
    student, teacher = network(0), network(1)
    before = values(teacher)
    step_towards(teacher, student, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    step_towards(teacher, student, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))


def test_the_teacher_step_leaves_the_student_and_all_buffers_alone() -> None:
    student, teacher = network(0), network(1)
    student(torch.randn(8, 3, dtype=torch.float64))
    theirs, buffers = values(student), [b.clone() for b in teacher.buffers()]
    step_towards(teacher, student, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(theirs, student.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers, teacher.buffers(), strict=True))


def test_followed_buffers_average_statistics_and_copy_counters() -> None:
    student, teacher = network(0), network(1)
    for _ in range(3):
        student(torch.randn(8, 3, dtype=torch.float64))
    mine, theirs = copy.deepcopy(teacher[1]), student[1]
    follow_buffers(teacher, student, 0.25)
    torch.testing.assert_close(teacher[1].running_mean, 0.75 * mine.running_mean + 0.25 * theirs.running_mean)
    assert int(teacher[1].num_batches_tracked) == 3


def test_proximal_gradient_equals_autograd_of_the_quadratic_term() -> None:
    teacher = network(1)
    manual, auto = network(0), network(0)
    x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    manual(x).square().sum().backward()
    add_proximal_gradient(manual, teacher, 0.7)
    distance = sum((p - t).square().sum() for p, t in zip(auto.parameters(), teacher.parameters(), strict=True))
    (auto(x).square().sum() + 0.35 * distance).backward()
    for a, b in zip(manual.parameters(), auto.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_proximal_gradient_is_zero_where_student_and_teacher_agree() -> None:
    student = network(0)
    for p in student.parameters():
        p.grad = torch.zeros_like(p)
    add_proximal_gradient(student, twin(student), 10.0)
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in student.parameters())


def test_a_twin_is_an_equal_copy_in_training_mode_that_no_gradient_reaches() -> None:
    student = network(0)
    teacher = twin(student)
    assert teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}


def test_teacher_gradient_is_that_of_the_moreau_envelope_on_a_quadratic() -> None:
    """F(θ) = a/2 ‖θ − c‖²: the inner optimum and λ(ξ − θ*) = aλ/(a + λ)(ξ − c), reached by real steps."""
    a, lam = 2.0, 0.5
    c = torch.tensor([1.0, -2.0], dtype=torch.float64)
    student, teacher = nn.Linear(2, 1, bias=False).double(), nn.Linear(2, 1, bias=False).double()
    xi = teacher.weight.detach().clone()[0]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        (a / 2 * (student.weight[0] - c).square().sum()).backward()
        add_proximal_gradient(student, teacher, lam)
        optimizer.step()
    theta = student.weight.detach()[0]
    torch.testing.assert_close(theta, (a * c + lam * xi) / (a + lam))
    tau = 0.1
    step_towards(teacher, student, tau * lam)
    gradient = (xi - teacher.weight.detach()[0]) / tau
    torch.testing.assert_close(gradient, a * lam / (a + lam) * (xi - c))


def test_a_step_back_is_one_of_gradient_descent_on_the_quadratic_term_and_ends_at_the_teacher_at_most() -> None:
    student, teacher = network(0), network(1)
    rates: dict[torch.Tensor, float] = {p: 0.3 if n % 2 else 7.0 for n, p in enumerate(student.parameters())}
    expected = [
        p - min(1.0, rates[p]) * (p - t) for p, t in zip(student.parameters(), teacher.parameters(), strict=True)
    ]
    untrained = next(student.parameters())
    before = untrained.detach().clone()
    for p in [*student.parameters()][1:]:
        p.grad = torch.zeros_like(p)
    step_back(student, teacher, rates)
    assert torch.equal(untrained, before)
    for p, wanted in zip([*student.parameters()][1:], expected[1:], strict=True):
        torch.testing.assert_close(p, wanted)
