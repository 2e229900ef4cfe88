"""Break the code on purpose, one place at a time, and see that a test notices: python tests/mutations.py [word …].

Words choose the mutations whose names contain one of them. Everything happens in a temporary copy. There the tests
that the table names must first pass; then each mutation must make its own fail. One that does not fail them shows that
a test is missing.
"""

from __future__ import annotations

import ast
import gc
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 600  # seconds for the tests of one mutation; a busy machine may need many
# Imported once; every run is a fork of a process that has imported them, and nothing of ours.
LIBRARIES = ["pytest", "torch", "torchvision", "pytorch_lightning", "hydra", "scipy.stats", "sklearn.neighbors"]
MISTAKE = re.compile(r"\b(NameError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError|UnboundLocalError)\b")


@dataclass(frozen=True)
class Mutation:
    """One place to break."""

    name: str
    file: str  # under src/ssl_bench, or conf/…
    old: str  # occurs once in the file
    new: str
    tests: tuple[str, ...]  # as pytest names them; one must fail

    def path(self, root: Path) -> Path:
        """The file within the checkout or copy ``root``."""
        return root / self.file if self.file.startswith("conf/") else root / "src" / "ssl_bench" / self.file


def _of(file: str, test_file: str, *rows: tuple[str, str, str, str]) -> list[Mutation]:
    """Mutations of one file that one test file is to notice: (name, old, new, tests)."""
    return [
        Mutation(name, file, old, new, tuple(f"tests/{test_file}::test_{test}" for test in tests.split()))
        for name, old, new, tests in rows
    ]


MUTATIONS = [
    # -- accelerators ---------------------------------------------------------------------------------
    *_of(
        "evaluation/evaluator.py",
        "test_emulated_runs.py",
        (
            "accelerator: positions on the CPU meet positions on the device",
            "if torch.isin(wanted, there).all():",
            "if torch.isin(wanted, bank().index).all():",
            "a_run_on_an_accelerator_gives_the_results_of_the_cpu",
        ),
    ),
    *_of(
        "callbacks/finite_loss.py",
        "test_step_counts.py",
        (
            "accelerator: every loss is read",
            'if method.device.type == "cpu" or trainer.is_last_batch:',
            "if True:",
            "a_step_copies_once_and_waits_for_nothing[simclr]",
        ),
    ),
    *_of(
        "batch.py",
        "test_step_counts.py",
        (
            "accelerator: the host waits for its copies",
            "non_blocking=True",
            "non_blocking=False",
            "a_step_copies_once_and_waits_for_nothing[simclr]",
        ),
    ),
    *_of(
        "nn/queue.py",
        "test_step_counts.py",
        (
            "accelerator: a queue chooses its rows by a mask",
            "self.rows[first : first + len(rows)] = F.normalize(rows, dim=1)",
            "self.rows[(at := torch.arange(len(self.rows), device=rows.device) - first).ge(0) & at.lt(len(rows))] "
            "= F.normalize(rows, dim=1)",
            "a_step_copies_once_and_waits_for_nothing[moco]",
        ),
    ),
    *_of(
        "optim.py",
        "test_emulated_runs.py",
        (
            "accelerator: SGD is fused on the CPU alone",
            "fused = len(devices) == 1 or None",
            'fused = devices == {"cpu"} or None',
            "every_method_runs_on_an_accelerator_as_on_the_cpu[supervised]",
        ),
    ),
    *_of(
        "data/delivery.py",
        "test_step_counts.py",
        (
            "accelerator: positions travel batch by batch",
            "for chosen in _moved(rows, self.images.device):",
            "for chosen in (r.to(self.images.device) for r in rows):",
            "a_step_copies_once_and_waits_for_nothing[simclr]",
        ),
    ),
    # -- losses ---------------------------------------------------------------------------------------
    *_of(
        "losses.py",
        "test_losses.py",
        (
            "nt_xent: an image's own candidates stay in the denominator",
            'others.scatter(2, hidden.expand(len(others), -1, -1), float("-inf"))',
            "others",
            "nt_xent_equals_the_double_loop",
        ),
        (
            "nt_xent: every rank takes its rows for the first ones",
            "torch.arange(first, first + n, device",
            "torch.arange(n, device",
            "nt_xent_of_rank_slices_averages_to_the_global_loss",
        ),
        (
            "nt_xent: no temperature",
            "(query @ key.T / temperature).view",
            "(query @ key.T).view",
            "nt_xent_equals_the_double_loop",
        ),
        (
            "nt_xent: small crops look for one full-size view only",
            "(hidden, wanted) in enumerate(_own_candidates(first, n, size, count, query.device)):",
            "(hidden, wanted) in enumerate(_own_candidates(first, n, size, count, query.device)[:1]):",
            "nt_xent_of_smaller_views_looks_for_each_full_size_view_among_other_images",
        ),
        (
            "info_nce: every rank takes its rows for the first ones",
            "torch.arange(first, first + len(query), device",
            "torch.arange(len(query), device",
            "info_nce_equals_the_double_loop",
        ),
        (
            "info_nce: no temperature",
            "F.normalize(full_precision(key), dim=1).T / temperature",
            "F.normalize(full_precision(key), dim=1).T",
            "info_nce_equals_the_double_loop",
        ),
        (
            "queue_nce: the temperature acts on the positive alone",
            "torch.cat([positive, query @ queue.to(query).T], dim=1) / temperature",
            "torch.cat([positive / temperature, query @ queue.to(query).T], dim=1)",
            "queue_nce_equals_the_explicit_matrix",
        ),
        (
            "normalized_mse: one cosine instead of two",
            "2 - 2 * F.cosine_similarity",
            "2 - F.cosine_similarity",
            "normalized_mse_is_the_squared_distance_of_unit_vectors",
        ),
        (
            "barlow_twins: N - 1 instead of N",
            "c = a.T @ b / len(a)",
            "c = a.T @ b / (len(a) - 1)",
            "barlow_twins_is_zero_for_equal_whitened_views_and_four_for_a_flipped_column",
        ),
        (
            "barlow_twins: the second sum has no weight",
            "return on + off_diagonal * off",
            "return on + off",
            "barlow_twins_of_independent_views_meets_its_expectation",
        ),
        (
            "barlow_twins: columns are centred only",
            "return centred / (centred.square().mean(0) + 1e-5).sqrt()",
            "return centred",
            "barlow_twins_ignores_shift_and_positive_scale_of_columns_and_the_order_of_views",
        ),
        (
            "vicreg: the spread is pushed above 1 too",
            "F.relu(1 - deviation).mean()",
            "(1 - deviation).mean()",
            "vicreg_of_equal_views_constant_columns_and_whitened_ones",
        ),
        (
            "vicreg: variances count as covariances",
            "(c.square().sum() - c.diagonal().square().sum()) / width",
            "c.square().sum() / width",
            "vicreg_terms_equal_double_loops",
        ),
        (
            "vicreg: the distance of views is summed over columns",
            "invariance * F.mse_loss(z1, z2)",
            "invariance * width * F.mse_loss(z1, z2)",
            "vicreg_terms_equal_double_loops",
        ),
        (
            "over_pairs: a view predicts itself",
            "for v in range(len(student)) if v != i]",
            "for v in range(len(student))]",
            "over_pairs_compares_each_full_size_view_with_all_others",
        ),
        (
            "over_pairs: small crops are forgotten",
            "for v in range(len(student)) if v != i]",
            "for v in range(len(target)) if v != i]",
            "over_pairs_compares_each_full_size_view_with_all_others",
        ),
        (
            "losses: half precision stays half",
            "return x if x.dtype == torch.float64 else x.float()",
            "return x",
            "losses_are_computed_in_float32",
        ),
    ),
    # -- teachers -------------------------------------------------------------------------------------
    *_of(
        "teachers.py",
        "test_teachers.py",
        (
            "teacher: the rate is the momentum",
            "list(student.parameters()), rate)",
            "list(student.parameters()), 1 - rate)",
            "a_full_step_copies_and_a_zero_step_freezes",
        ),
        (
            "teacher: the student follows",
            "_foreach_lerp_(list(teacher.parameters()), list(student.parameters())",
            "_foreach_lerp_(list(student.parameters()), list(teacher.parameters())",
            "the_teacher_step_leaves_the_student_and_all_buffers_alone",
        ),
        (
            "teacher: buffers are copied instead of averaged",
            "mine.lerp_(theirs, rate)",
            "mine.copy_(theirs)",
            "followed_buffers_average_statistics_and_copy_counters",
        ),
        (
            "teacher: counters stand still",
            "            mine.copy_(theirs)",
            "            pass",
            "followed_buffers_average_statistics_and_copy_counters",
        ),
        (
            "teacher: the twin is trained",
            ".requires_grad_(False)",
            "",
            "a_twin_is_an_equal_copy_in_training_mode_that_no_gradient_reaches",
        ),
        (
            "proximal: pushes away from the teacher",
            "_foreach_add_(gradients, [p for p, _ in pairs], alpha=strength)\n"
            "    torch._foreach_sub_(gradients, [t for _, t in pairs], alpha=strength)",
            "_foreach_sub_(gradients, [p for p, _ in pairs], alpha=strength)\n"
            "    torch._foreach_add_(gradients, [t for _, t in pairs], alpha=strength)",
            "proximal_gradient_equals_autograd_of_the_quadratic_term",
        ),
        (
            "proximal: a plain weight decay",
            "    torch._foreach_sub_(gradients, [t for _, t in pairs], alpha=strength)\n",
            "",
            "proximal_gradient_is_zero_where_student_and_teacher_agree",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_byol.py",
        (
            "ema: the momentum has no schedule",
            "momentum = cosine(self.momentum, 1.0, self.progress)",
            "momentum = self.momentum",
            "the_teacher_is_the_moving_average_under_its_schedule[cosine-byol]",
        ),
        (
            "ema: rate and momentum are exchanged",
            "teachers.step_towards(self.teacher, self.student, 1 - momentum)",
            "teachers.step_towards(self.teacher, self.student, momentum)",
            "the_teacher_is_the_moving_average_under_its_schedule[constant-byol]",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_accumulation.py",
        (
            "accumulation: the last step of an epoch divides by more batches than it took",
            "loss if held == whole else loss * (whole / held)",
            "loss",
            "a_step_takes_the_mean_gradient_of_its_batches",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_base.py",
        (
            "ema: a step that a gradient scaler skips counts",
            "if self.student_steps > before:",
            "if True:",
            "a_step_that_a_gradient_scaler_skips_does_not_count",
        ),
        (
            "checkpoint: the count of student steps is not restored",
            'self.student_steps = state["student_steps"]',
            "pass",
            "counters_go_on_where_they_were_saved",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_simsiam.py",
        (
            "predictor: its constant learning rate decays",
            "lr_scale=scale, constant_lr=constant)",
            "lr_scale=scale, constant_lr=False)",
            "a_constant_learning_rate_is_the_predictors_alone",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_directpred.py",
        (
            "predictor: the factor on its learning rate is ignored",
            "Group(apart, lr_scale=scale,",
            "Group(apart, lr_scale=1.0,",
            "baselines_train_their_predictor_at_a_rate_of_its_own[linear]",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_multi_crop.py",
        (
            "views: small crops are targets",
            "self.embed(self.teacher, views[: self.views.full_size])",
            "self.embed(self.teacher, views)",
            "only_full_size_views_are_targets",
        ),
    ),
    *_of(
        "methods/swav.py",
        "methods/test_base.py",
        (
            "swav: the loss fills the queue",
            "        loss = over_pairs(self.prediction_loss, scores, codes)",
            "        self.collected.append(codes)\n        loss = over_pairs(self.prediction_loss, scores, codes)",
            "the_loss_changes_nothing_and_is_the_same_again[swav]",
        ),
    ),
    # -- methods -----------------------------------------------------------------------------------------
    *_of(
        "methods/clbo.py",
        "methods/test_clbo.py",
        (
            "clbo: the proximal strength starts at 0",
            "self.proximal * self.epoch)",
            "self.proximal * (self.epoch - 1))",
            "training_follows_algorithm_1_across_epoch_ends[2-0.3-False]",
        ),
        (
            "clbo: the proximal strength does not grow",
            "self.proximal * self.epoch)",
            "self.proximal)",
            "training_follows_algorithm_1_across_epoch_ends[2-0.3-False]",
        ),
        (
            "clbo: the teacher moves before the last student step",
            "if self.student_steps % every:",
            "if (self.student_steps + 1) % every:",
            "the_teacher_stands_still_between_its_steps_and_the_count_crosses_epoch_ends",
        ),
        (
            "clbo: lookahead steps are counted anew in every epoch",
            "if self.student_steps % every:",
            "if self.student_steps % self.trainer.num_training_batches % every:",
            "the_teacher_stands_still_between_its_steps_and_the_count_crosses_epoch_ends",
        ),
        (
            "clbo: the teacher's rate does not decay",
            "self.teacher_step / (self.epoch if",
            "self.teacher_step / (1 if",
            "training_follows_algorithm_1_across_epoch_ends[3-0.1-True]",
        ),
        (
            "clbo: no restart",
            "if self.restart:",
            "if self.restart and self.teacher_steps:",
            "restart_sets_the_student_back_to_the_teacher",
        ),
        (
            "clbo: the restart moves the teacher",
            "teachers.step_towards(self.student, self.teacher, 1.0)",
            "teachers.step_towards(self.teacher, self.student, 1.0)",
            "restart_sets_the_student_back_to_the_teacher",
        ),
        (
            "clbo: the student is deployed",
            'evaluated = "teacher"',
            'evaluated = "student"',
            "the_deployed_network_is_the_teacher",
        ),
        (
            "clbo: a second look has the views of the first",
            'self.draw = repeat if self.lookahead_batch == "same_images" else 0',
            "self.draw = 0",
            "same_images_are_augmented_anew_and_the_same_batch_is_not",
        ),
        (
            "clbo: averaged statistics follow the teacher's own batches too",
            "module.momentum = 0.0",
            "pass",
            "averaged_teacher_statistics_move_by_the_teacher_step_alone",
        ),
    ),
    *_of(
        "methods/clbo.py",
        "methods/test_base.py",
        (
            "checkpoint: the count of teacher steps is not restored",
            'self.teacher_steps = state["teacher_steps"]',
            "pass",
            "counters_go_on_where_they_were_saved",
        ),
    ),
    *_of(
        "methods/directpred.py",
        "methods/test_base.py",
        (
            "checkpoint: the count of observed batches is not restored",
            'self.batches = state["batches"]',
            "pass",
            "counters_go_on_where_they_were_saved",
        ),
    ),
    *_of(
        "methods/directpred.py",
        "methods/test_directpred.py",
        (
            "directpred: ρ and 1 - ρ are exchanged",
            "1 - keep)",
            "keep)",
            "the_correlation_is_the_moving_average_of_both_views",
        ),
        (
            "directpred: a view predicts itself",
            "torch.cat(z[::-1])",
            "torch.cat(z)",
            "the_correlation_is_the_moving_average_of_both_views",
        ),
        (
            "directpred: the predictor is set one step late",
            "(self.student_steps - 1) % self.freq == 0",
            "self.student_steps % self.freq == 0",
            "the_predictor_is_set_at_multiples_of_freq_only",
        ),
        (
            "directpred: eigenvalues have no floor",
            "(s + epsilon).clamp(min=FLOOR).sqrt()",
            "(s + epsilon).clamp(min=0).sqrt()",
            "a_negative_epsilon_inside_is_floored",
        ),
        (
            "directpred: inside and outside are exchanged",
            'if epsilon_place == "inside" else',
            'if epsilon_place != "inside" else',
            "the_predictor_has_the_correlations_axes_and_the_papers_eigenvalues",
        ),
    ),
    *_of(
        "methods/moco.py",
        "methods/test_moco.py",
        (
            "moco: keys are enqueued before the loss",
            "        both = queue_nce(q1, k2,",
            "        self.queues.push([self.collect(step)])\n        both = queue_nce(q1, k2,",
            "keys_are_enqueued_after_the_step_and_never_read_by_their_own_batch",
        ),
        (
            "moco: a query meets its own view's key",
            "queue_nce(q1, k2, queue",
            "queue_nce(q1, k1, queue",
            "the_loss_is_the_loop_over_queue_rows_in_both_directions",
        ),
    ),
    *_of(
        "methods/moby.py",
        "methods/test_moby.py",
        (
            "moby: the queues are exchanged",
            "queue1, queue2 = (queue.rows",
            "queue2, queue1 = (queue.rows",
            "the_loss_pairs_a_prediction_with_the_other_views_key_and_queue",
        ),
        (
            "moby: keys enter the other view's queue",
            "return step.gathered_targets",
            "return step.gathered_targets[::-1]",
            "each_queue_takes_the_keys_of_its_view",
        ),
    ),
    *_of(
        "methods/swav.py",
        "methods/test_swav.py",
        (
            "swav: sinkhorn ends with the prototypes",
            "        images = 1 / (kernel @ prototypes)\n    return images",
            "        images = 1 / (kernel @ prototypes)\n    prototypes = 1 / (images @ kernel)\n    return images",
            "codes_equal_the_iteration_on_plain_exponentials",
        ),
        (
            "swav: prototypes are not balanced",
            "        prototypes = 1 / (images @ kernel)",
            "        prototypes = torch.ones_like(kernel[0])",
            "every_images_code_sums_to_one_and_prototypes_balance_with_iterations",
        ),
        (
            "swav: prototypes are not balanced on logarithms",
            "        log = log - log.logsumexp(0, keepdim=True)  # every prototype the same\n",
            "",
            "codes_equal_the_iteration_on_plain_exponentials",
        ),
        (
            "swav: prototypes wake an epoch early",
            "self.epoch <= self.freeze_epochs",
            "self.epoch < self.freeze_epochs",
            "prototypes_rest_while_frozen_then_move_and_stay_unit",
        ),
        (
            "swav: prototypes leave the sphere",
            "self.prototypes.copy_(F.normalize(self.prototypes, dim=1))",
            "pass",
            "prototypes_rest_while_frozen_then_move_and_stay_unit",
        ),
        (
            "swav: the queue is used before it is full",
            "if queue.full:",
            "if queue.pushed:",
            "the_queue_helps_when_full_and_its_rows_have_no_loss",
        ),
        (
            "swav: both views read the first queue",
            "queue = list(self.queues)[view]",
            "queue = list(self.queues)[0]",
            "a_view_is_assigned_among_its_own_queue",
        ),
        (
            "swav: the temperature is left out",
            "F.log_softmax(scores / self.temperature, dim=1)",
            "F.log_softmax(scores, dim=1)",
            "the_loss_predicts_each_full_size_code_from_every_other_view",
        ),
    ),
    *_of(
        "methods/simsiam.py",
        "methods/test_simsiam.py",
        (
            "simsiam: gradient flows through the target",
            "[z.detach() for z in step.targets]",
            "step.targets",
            "no_gradient_flows_through_the_targets",
        ),
    ),
    *_of(
        "nn/heads.py",
        "methods/test_simsiam.py",
        (
            "simsiam: the output norm has scale and shift",
            "nn.BatchNorm1d(inputs, affine=False)",
            "nn.BatchNorm1d(inputs)",
            "the_projector_ends_in_a_norm_without_scale_and_shift",
        ),
    ),
    *_of(
        "conf/method/simsiam.yaml",
        "methods/test_simsiam.py",
        (
            "simsiam: no output norm",
            "  output_norm: true  #",
            "  output_norm: false  #",
            "the_projector_ends_in_a_norm_without_scale_and_shift",
        ),
    ),
    *_of(
        "methods/pic.py",
        "methods/test_pic.py",
        (
            "pic: small crops move the instance weights",
            "(classes if crop < full_size else classes.detach())",
            "classes",
            "small_crops_learn_from_the_weights_and_do_not_move_them",
        ),
        (
            "pic: recent classes are forgotten",
            "torch.cat([visited, recent])",
            "visited",
            "the_classes_are_the_batchs_and_those_visited_last_or_all",
        ),
        (
            "pic: the batch's classes do not catch up",
            "            self.classes.catch_up(visited, self.student_steps)",
            "            pass",
            "training_is_that_of_a_dense_optimiser_over_all_instance_weights",
        ),
        (
            "pic: a step takes the next step's learning rate",
            "mean_over_ranks(gradient), self.student_steps - 1)",
            "mean_over_ranks(gradient), self.student_steps % len(self.classes.rates))",
            "training_is_that_of_a_dense_optimiser_over_all_instance_weights",
        ),
    ),
    # -- parts of methods --------------------------------------------------------------------------------
    *_of(
        "nn/recency.py",
        "nn/test_recency.py",
        (
            "recency: the oldest of a batch come first",
            "visited.flip(0)",
            "visited",
            "the_list_is_that_of_a_queue_that_moves_a_visitor_to_the_front",
        ),
        (
            "recency: somebody stands in the list twice",
            "(ids[1:] == ids[:-1]) | (ids[1:] < 0)",
            "ids[1:] < 0",
            "the_list_is_that_of_a_queue_that_moves_a_visitor_to_the_front",
        ),
    ),
    *_of(
        "nn/queue.py",
        "nn/test_queue.py",
        (
            "queue: the pointer stands still",
            "first = self.pushed % len(self.rows)",
            "first = 0",
            "it_holds_the_newest_keys_the_oldest_are_overwritten_first",
        ),
        (
            "queue: keys keep their length",
            "= F.normalize(rows, dim=1)",
            "= rows",
            "rows_are_unit_vectors_from_the_start",
        ),
        (
            "queue: the pointer is not restored",
            'self.pushed = state["pushed"]',
            "pass",
            "its_state_says_where_to_go_on",
        ),
        (
            "queue: full after one push",
            "return self.pushed >= len(self.rows)",
            "return self.pushed > 0",
            "it_holds_the_newest_keys_the_oldest_are_overwritten_first",
        ),
    ),
    *_of(
        "methods/simclr.py",
        "methods/test_simclr.py",
        (
            "simclr: candidates get no gradient",
            "step.predictions, step.gathered_targets",
            "step.predictions, [z.detach() for z in step.gathered_targets]",
            "an_embedding_gets_gradient_as_anchor_and_as_candidate",
        ),
    ),
    *_of(
        "methods/vicreg.py",
        "methods/test_vicreg.py",
        (
            "vicreg: the second view gets no gradient",
            "self.terms(z1, z2)",
            "self.terms(z1, z2.detach())",
            "both_views_get_gradient",
        ),
    ),
    *_of(
        "methods/moco.py",
        "methods/test_byol.py",
        (
            "moco: the teacher stands still",
            "super().after_optimizer_step()",
            "pass",
            "the_teacher_is_the_moving_average_under_its_schedule",
        ),
    ),
    *_of(
        "methods/base.py",
        "methods/test_moco.py",
        (
            "methods: what was collected is enqueued again and again",
            "        self.collected.clear()\n",
            "",
            "the_queue_holds_the_keys_of_the_last_batches",
        ),
    ),
    *_of(
        "callbacks/finite_loss.py",
        "callbacks/test_finite_loss.py",
        (
            "finite loss: of an epoch only the last is looked at",
            'outputs["value"] if self.unread is None else self.unread + outputs["value"]',
            'outputs["value"]',
            "a_loss_is_missed_neither_by_a_save_nor_by_the_epochs_end",
        ),
    ),
    *_of(
        "nn/lazy_sgd.py",
        "nn/test_lazy_sgd.py",
        (
            "lazy sgd: missed steps are not caught up with",
            "self._products.between(taken, step)",
            "self._products.between(taken, step) * 0 + torch.eye(2)",
            "lazy_rows_are_those_of_dense_sgd",
        ),
        (
            "lazy sgd: the velocity rests in missed steps",
            "weight, velocity = (product @ pair).unbind(1)",
            "weight, velocity = (product @ pair)[:, 0], pair[:, 1]",
            "lazy_rows_are_those_of_dense_sgd",
        ),
        (
            "lazy sgd: a look at a row stops its velocity",
            "velocity.mul_(self.momentum).add_",
            "velocity.zero_().add_",
            "lazy_rows_are_those_of_dense_sgd",
        ),
        (
            "lazy sgd: later steps stand right",
            "self.levels[level][block] @ product, product)",
            "product @ self.levels[level][block], product)",
            "a_product_over_any_interval_is_the_product_of_its_steps_the_later_to_the_left",
        ),
        (
            "lazy sgd: a step is taken twice",
            "self._keep(active, weight, velocity, step + 1)",
            "self._keep(active, weight, velocity, step)",
            "lazy_rows_are_those_of_dense_sgd",
        ),
    ),
    *_of(
        "optim.py",
        "test_optim.py",
        (
            "lars: the ratio is upside down",
            "trust * w / d, torch",
            "trust * d / w, torch",
            "lars_is_the_loop_of_its_equation",
        ),
        (
            "lars: what is 0 never moves",
            "torch.where((w > 0) & (d > 0), trust",
            "torch.where(d > 0, trust",
            "lars_is_the_loop_of_its_equation",
        ),
        (
            "lars: biases have a ratio",
            "**self._trusting(None if spared else self.trust)",
            "**self._trusting(self.trust)",
            "lars_is_the_loop_of_its_equation",
        ),
        (
            "lars: biases decay",
            "0.0 if spared else self.weight_decay",
            "self.weight_decay",
            "lars_is_the_loop_of_its_equation",
        ),
        (
            "lars: no momentum",
            'torch._foreach_mul_(momenta, group["momentum"])',
            "torch._foreach_mul_(momenta, 0.0)",
            "lars_is_the_loop_of_its_equation",
        ),
    ),
    *_of(
        "schedules.py",
        "methods/test_base.py",
        (
            "schedule: the cosine starts after the warm-up",
            "step / self.total_steps)",
            "(step - self.warmup_steps) / (self.total_steps - self.warmup_steps))",
            "the_learning_rate_is_a_warm_up_and_a_cosine",
        ),
    ),
    # -- images and views --------------------------------------------------------------------------------
    *_of(
        "data/loader.py",
        "data/test_loader.py",
        (
            "loader: ranks take every R-th row",
            "rows.append(whole[first:end])",
            "rows.append(whole[self.rank :: self.world])",
            "ranks_together_see_what_one_rank_sees",
        ),
        (
            "loader: a restored loader repeats a batch",
            "(epoch, step + 1) if step < last",
            "(epoch, step) if step < last",
            "a_saved_loader_goes_on_with_the_next_batch",
        ),
        (
            "loader: a restored loader begins its epoch again",
            'self.epoch, self.step = state_dict["epoch"], state_dict["step"]',
            'self.epoch, self.step = state_dict["epoch"], 0',
            "a_saved_loader_goes_on_with_the_next_batch",
        ),
    ),
    *_of(
        "data/datamodule.py",
        "data/test_datamodule.py",
        (
            "resume: the position in the data is forgotten",
            "loader.load_state_dict(self._position)",
            "pass",
            "a_window_drops_no_image_between_batches_and_epochs_and_goes_on_after_a_restart",
        ),
    ),
    *_of(
        "data/orders.py",
        "data/test_orders.py",
        (
            "order: every epoch is alike",
            'generator("permutation", seed, epoch)',
            'generator("permutation", seed)',
            "permutations_of_neighbouring_seeds_and_epochs_are_unrelated",
        ),
        (
            "order: seed and epoch are added",
            'generator("permutation", seed, epoch)',
            'generator("permutation", seed + epoch)',
            "permutations_of_neighbouring_seeds_and_epochs_are_unrelated",
        ),
        (
            "window: it moves by its length",
            "number * stride + shuffled",
            "number * window + shuffled",
            "a_pass_is_a_stretch_of_the_circle_and_the_next_one_shares_all_but_a_stride_of_it",
        ),
        (
            "window: every epoch begins a pass",
            "skipped : skipped + length",
            "0:length",
            "epochs_of_any_length_are_cuts_of_one_stream",
        ),
    ),
    *_of(
        "batch.py",
        "data/test_loader.py",
        (
            "views: drawn per rank",
            "numbers[self.first : self.first + rows]",
            "numbers[:rows]",
            "random_draws_of_an_image_do_not_depend_on_the_number_of_ranks",
        ),
    ),
    *_of(
        "batch.py",
        "augment/test_views.py",
        (
            "views: a second look draws the same",
            "self.step, draw, stream)",
            "self.step, stream)",
            "every_view_draw_step_epoch_and_seed_draws_anew",
        ),
        (
            "views: both views are one",
            "self.step, draw, stream)",
            "self.step, draw)",
            "every_view_draw_step_epoch_and_seed_draws_anew",
        ),
    ),
    *_of(
        "augment/views.py",
        "augment/test_views.py",
        (
            "views: parameters are copied view by view",
            "tables = to_device(self.tables(batch, draw), batch.images.device)",
            "tables = torch.stack([to_device(table, batch.images.device) for table in self.tables(batch, draw)])",
            "an_accelerator_waits_for_nothing_and_gives_the_views_of_the_cpu",
        ),
    ),
    *_of(
        "augment/ops.py",
        "augment/test_views.py",
        (
            "ops: what a mask leaves out is changed on an accelerator",
            "torch.where(mask[:, None, None, None], operation(images, *parameters), images)",
            "operation(images, *parameters)",
            "an_accelerator_waits_for_nothing_and_gives_the_views_of_the_cpu",
        ),
        (
            "ops: masks pick rows on an accelerator",
            'if images.device.type != "cpu":',
            "if False:",
            "an_accelerator_waits_for_nothing_and_gives_the_views_of_the_cpu",
        ),
    ),
    *_of(
        "augment/fused.py",
        "augment/test_fused.py",
        (
            "kernels: contrast blends with the gray of the untouched crop",
            "table, 0, contrast, 0.0, CHANNELS)",
            "table, 0, 0, 0.0, CHANNELS)",
            "a_recipe_in_several_tiles_is_that_of_ops",
        ),
        (
            "kernels: contrast blends with the gray of one tile",
            "mask=tiles < ACROSS * ACROSS",
            "mask=tiles < 1",
            "a_recipe_in_several_tiles_is_that_of_ops",
        ),
        (
            "kernels: the border is repeated, not mirrored",
            "(SIZE - 1) - tl.abs((SIZE - 1) - tl.abs(position))",
            "tl.minimum(tl.maximum(position, 0), SIZE - 1)",
            "each_operation_alone_is_that_of_ops",
        ),
        (
            "kernels: pixels at a box's edge count in full",
            "* tl.maximum(covered, 0.0)",
            "* tl.where(covered > 0, 1.0, 0.0)",
            "a_recipe_in_several_tiles_is_that_of_ops",
        ),
        (
            "kernels: the hue turns the other way",
            "tl.where(green >= blue, distance, -distance)",
            "tl.where(green >= blue, -distance, distance)",
            "each_operation_alone_is_that_of_ops",
        ),
    ),
    *_of(
        "augment/views.py",
        "augment/test_fused.py",
        (
            "kernels: a view of another size takes the first table",
            "tables[len(views) : len(views) + count]",
            "tables[:count]",
            "views_of_several_sizes_are_drawn_by_kernels_as_without",
        ),
        (
            "kernels: drawn in float32 under autocast",
            "if autocast else torch.float32",
            "if not autocast else torch.float32",
            "kernels_draw_in_the_precision_of_autocast",
        ),
        (
            "kernels: every step shows anew that they fail",
            "self.use_kernels = False",
            "pass",
            "where_kernels_fail_it_is_shown_once_and_the_plain_path_draws",
        ),
    ),
    *_of(
        "augment/ops.py",
        "augment/test_squashed.py",
        (
            "squashed: pixels at a box's edge count in full",
            "weights *= covered.clamp_(min=0)[:, None]",
            "weights *= (covered > 0)[:, None]",
            "a_pixel_that_a_box_covers_in_part_counts_by_that_part",
        ),
    ),
    *_of(
        "augment/draws.py",
        "augment/test_squashed.py",
        (
            "squashed: height and width exchanged",
            "(stored.double() / sizes).repeat(1, 2)",
            "(stored.double() / sizes.flip(1)).repeat(1, 2)",
            "a_circle_stays_round",
        ),
    ),
    *_of(
        "augment/views.py",
        "augment/test_squashed.py",
        (
            "squashed: crops are drawn in the squashed picture",
            "height, width, group, sizes)",
            "height, width, group)",
            "views_of_a_batch_with_sizes_are_of_the_originals",
        ),
        (
            "squashed: the clean view stays squashed",
            "resized = self.resized * sizes // sizes.amin(1, keepdim=True)",
            "resized = self.resized * torch.ones_like(sizes)",
            "a_circle_stays_round",
        ),
    ),
    # -- pictures in files -------------------------------------------------------------------------------
    *_of(
        "data/readers/folder.py",
        "data/readers/test_folder.py",
        (
            "folder: train and test become classes",
            "if not (learnt and judged):",
            "if True:",
            "splits_are_not_taken_for_classes",
        ),
        (
            "folder: two spellings of a name are two classes",
            'unicodedata.normalize("NFC", folder)',
            "folder",
            "spellings_of_one_name_are_one_class",
        ),
    ),
    *_of(
        "data/readers/pictures.py",
        "data/test_packed.py",
        (
            "pictures: a camera held sideways keeps its height",
            "height, width = width, height",
            "pass",
            "sizes_are_those_a_viewer_shows",
        ),
        (
            "pictures: all are decoded ahead",
            "begin(AHEAD * threads)",
            "begin(10**6)",
            "a_few_pictures_per_core_are_ahead_of_those_written",
        ),
    ),
    *_of(
        "data/readers/pictures.py",
        "data/readers/test_pictures.py",
        (
            "pictures: two turns share their memory",
            "block = spare.pop()",
            "block = spare[0]",
            "several_threads_give_what_one_gives",
        ),
    ),
    *_of(
        "data/pack_journal.py",
        "data/test_packed.py",
        (
            "packed: rows behind the journal stay",
            "rows.truncate(HEADER + len(done.kept) * row_bytes)",
            "pass",
            "what_an_interruption_left_is_gone_on_with_as_far_as_it_is_whole",
        ),
        (
            "packed: lines of missing rows count",
            "if digest and HEADER + (len(done.kept) + 1) * row_bytes > size:",
            "if False:",
            "what_an_interruption_left_is_gone_on_with_as_far_as_it_is_whole",
        ),
        (
            "packed: the journal of other pictures counts",
            "if lines.readline() == title:",
            "if lines.readline():",
            "what_an_interruption_left_is_gone_on_with_as_far_as_it_is_whole",
        ),
    ),
    *_of(
        "data/pack_file.py",
        "data/test_packed.py",
        (
            "packed: the tensors behind the images are not checked",
            'if _checksum(self.about, header, self._map[HEADER + begin :]) != self.about["checksum"]:',
            "if False:",
            "a_flipped_byte_elsewhere_is_found_before_an_image_is_used",
        ),
        (
            "packed: other images are verified",
            "for row in rows:",
            "for row in rows[1:]:",
            "a_flipped_pixel_is_found_and_its_picture_named",
        ),
    ),
    *_of(
        "data/packed.py",
        "data/test_packed.py",
        (
            "packed: a picture's time of change does not count",
            "return stat.st_size, stat.st_mtime_ns",
            "return stat.st_size, 0",
            "a_changed_folder_is_noticed_and_packed_anew",
        ),
        (
            "packed: a file under the right name is the right one",
            'if found.about["key"] != source.key:',
            "if False:",
            "a_pack_under_anothers_name_is_not_used",
        ),
        (
            "packed: skipped pictures pass although they should stop",
            "if skipped and not source.folder.skip:",
            "if False:",
            "a_broken_picture_is_named_and_stops_or_is_skipped_and_counted",
        ),
        (
            "packed: two pack at once",
            'with FileLock(source.path.with_name(f".{source.dataset}-{source.place}.lock"), timeout=0):',
            "if True:",
            "two_processes_do_not_pack_the_same_at_once",
        ),
        (
            "packed: a pack under way of the folder as it was is taken for a left-over",
            'f".{source.dataset}-{source.place}.lock"',
            'f".{source.path.stem}.lock"',
            "packing_a_folder_that_has_changed_meanwhile_leaves_the_pack_under_way_alone",
        ),
        (
            "packed: room is not asked for",
            "if needed > free:",
            "if False:",
            "a_disk_without_room_is_refused_in_advance_and_one_that_fills_up_is_gone_on_with",
        ),
        (
            "packed: what a kill left stays",
            "if not _left_over(source):",
            "if True:",
            "what_a_kill_left_beside_a_finished_pack_is_removed_by_the_next_call",
        ),
    ),
    *_of(
        "data/readers/pictures.py",
        "data/test_packed.py",
        (
            "pictures: a failing machine breaks pictures",
            "if isinstance(error, MemoryError) or not of_the_file:",
            "if False:",
            "what_the_machine_does_wrong_is_no_fault_of_a_picture",
        ),
    ),
    *_of(
        "data/readers/arrays.py",
        "data/readers/test_cifar.py",
        (
            "arrays: a pickle may fill the memory",
            "        _check(content)\n",
            "",
            "a_hostile_or_damaged_pickle_does_nothing_but_raise_an_error",
        ),
    ),
    *_of(
        "data/delivery.py",
        "data/test_delivery.py",
        (
            "delivery: a buffer is filled before its copy has ended",
            "            self.sent.wait()",
            "            pass",
            "batches_are_those_of_the_hosts_memory_pass_after_pass",
        ),
        (
            "delivery: images take all of the device's memory",
            "size <= SHARE * free",
            "size <= free",
            "images_live_where_there_is_room",
        ),
    ),
    *_of(
        "data/loader.py",
        "data/test_packed.py",
        (
            "loader: sizes of other rows",
            "sizes.index_select(0, chosen)",
            "sizes[: len(chosen)]",
            "any_number_of_ranks_sees_the_same_in_memory_and_packed",
        ),
    ),
    # -- evaluation --------------------------------------------------------------------------------------
    *_of(
        "evaluation/knn.py",
        "evaluation/test_knn.py",
        (
            "knn: the vote has no temperature",
            "(similarity - similarity[:, :1]) / temperature).exp()",
            "similarity - similarity[:, :1]).exp()",
            "vote_is_that_of_scikit_learn",
        ),
        (
            "knn: one vote for each class",
            "total[rows, label] += one",
            "total[rows, label] = one",
            "votes_are_added_in_the_order_of_the_neighbours",
        ),
        (
            "knn: the farthest candidates",
            "ranked = similarity.sort(dim=1, descending=True",
            "ranked = similarity.sort(dim=1, descending=False",
            "neighbours_are_those_of_a_float64_search",
        ),
        (
            "knn: the scan trusts its rounding",
            "similarity >= (lowest - error).to(dtype)",
            "similarity > reached.to(dtype)",
            "scan_never_rules_out_a_neighbour",
        ),
    ),
    *_of(
        "evaluation/protocols.py",
        "evaluation/test_protocols.py",
        (
            "knn: a validation image is its own neighbour",
            "splits.bank.rows(~torch.isin(splits.bank.index, splits.validation.index))",
            "splits.bank",
            "validation_images_in_the_bank_are_not_their_own_neighbours",
        ),
        (
            "few labels: classes are drawn as they come",
            "[in_order[label == c] for c in range(classes)]",
            "[in_order for c in range(classes)]",
            "draws_hold_every_class_alike_and_differ",
        ),
        (
            "few labels: draws follow the order of the bank",
            "bank.index.argsort().cpu()",
            "torch.arange(len(bank.index))",
            "draws_are_the_same_images_for_every_order_of_the_bank_and_every_run",
        ),
        (
            "linear: validation is scored after the refit on it",
            'if self.refit and on == "test":',
            "if self.refit:",
            "linear_reports_validation_without_refit_and_test_after_it",
        ),
    ),
    *_of(
        "evaluation/linear.py",
        "evaluation/test_linear.py",
        (
            "linear: the worst learning rate is chosen",
            "torch.stack(right).argmax()",
            "torch.stack(right).argmin()",
            "learning_rate_is_chosen_on_validation_alone",
        ),
        (
            "linear: the refit sees train alone",
            "everything = train.joined(validation)",
            "everything = train",
            "refit_trains_on_train_and_validation",
        ),
        (
            "linear: an odd image makes a batch of its own",
            "zip(x[order].tensor_split(batches), target[order].tensor_split(batches), strict",
            "zip(x[order].split(self.batch_size), target[order].split(self.batch_size), strict",
            "no_number_of_images_makes_the_probe_worse_than_logistic_regression[few] "
            "an_image_that_is_left_over_makes_no_batch_of_its_own",
        ),
        (
            "linear: features are centred only",
            "return mean, deviation.masked_fill(constant, 1)",
            "return mean, torch.ones_like(deviation)",
            "scale_shift_and_constant_features_do_not_matter",
        ),
        (
            "linear: rounding noise is blown up",
            "deviation <= 1e-6 * x.abs().amax(0)",
            "deviation <= 0",
            "rounding_noise_of_a_constant_feature_is_not_blown_up",
        ),
    ),
    *_of(
        "evaluation/features.py",
        "evaluation/test_features.py",
        (
            "features: batch statistics at evaluation",
            "        network.eval()\n",
            "        pass\n",
            "features_are_those_of_the_network_in_evaluation_mode",
        ),
    ),
    *_of(
        "evaluation/features.py",
        "evaluation/test_precision.py",
        (
            "features: as TF32 would have them",
            "torch.no_grad(), full_float32(device),",
            "torch.no_grad(),",
            "networks_are_evaluated_in_float32",
        ),
    ),
    # -- what a run leaves behind ------------------------------------------------------------------------
    *_of(
        "results/fingerprint.py",
        "results/test_fingerprint.py",
        (
            "fingerprint: the seed is left out",
            '    "data_dir",\n',
            '    "data_dir",\n    "seed",\n',
            "what_changes_the_numbers_changes_the_name[seed=1]",
        ),
        (
            "fingerprint: a path is let in",
            '    "data_dir",\n',
            "",
            "where_and_how_a_run_is_watched_does_not_change_its_name[data_dir=elsewhere]",
        ),
        (
            "fingerprint: the data is left out",
            '"data": data_digest, ',
            "",
            "data_precision_and_numerics_are_part_of_the_name",
        ),
        (
            "fingerprint: a newer key renames old runs",
            "if leaves.get(key) == neutral:",
            "if leaves.get(key) != neutral:",
            "a_key_added_later_is_left_out_while_neutral",
        ),
    ),
    *_of(
        "files.py",
        "test_files.py",
        (
            "files: written in place",
            'path.with_name(f".{path.stem}.tmp{path.suffix}")',
            "path",
            "a_writer_that_fails_leaves_the_old_file_and_no_temporary",
        ),
        (
            "files: a failure leaves its temporary file",
            "temporary.unlink(missing_ok=True)",
            "pass",
            "a_writer_that_fails_leaves_the_old_file_and_no_temporary",
        ),
        (
            "files: of two that belong together an old one stays while a new one is put in place",
            "        for path in others:\n            path.unlink(missing_ok=True)\n",
            "",
            "files_that_belong_together_are_never_old_beside_new",
        ),
    ),
    # -- tables and figures ------------------------------------------------------------------------------
    *_of(
        "report/statistics.py",
        "report/test_statistics.py",
        (
            "statistics: seeds are paired in any order",
            "[one[seed] - other[seed] for seed in seeds]",
            "[a - b for a, b in zip(sorted(one.values()), sorted(other.values()))]",
            "seeds_are_paired_by_their_number_and_those_of_one_row_alone_are_left_out",
        ),
        (
            "statistics: equal differences of one image are a proof",
            "np.maximum(variance, step**2 / 6)",
            "variance",
            "equal_differences_of_one_image_are_no_proof_and_large_ones_are",
        ),
        (
            "statistics: one tail",
            "np.clip(1 - within, 0.0, 1.0)",
            "np.clip((1 - within) / 2, 0.0, 1.0)",
            "paired_p_is_scipys tails_of_students_t_are_scipys",
        ),
        (
            "statistics: Bonferroni instead of Holm",
            "(len(p) - rank) * p[place]",
            "len(p) * p[place]",
            "holm_by_hand",
        ),
        (
            "statistics: adjusted values may fall",
            "largest = max(largest, min(1.0, (len(p) - rank) * p[place]))",
            "largest = min(1.0, (len(p) - rank) * p[place])",
            "holm_by_hand",
        ),
        (
            "statistics: many comparisons are not corrected for",
            "adjusted = holm([paired_p(enough[highest], enough[name], step=step) for name in others])",
            "adjusted = [paired_p(enough[highest], enough[name], step=step) for name in others]",
            "the_correction_counts_the_rows_of_the_column",
        ),
        (
            "statistics: two seeds are compared",
            "FEWEST = 3 ",
            "FEWEST = 2 ",
            "with_fewer_than_three_seeds_nothing_is_marked",
        ),
        (
            "statistics: the deviation of the population",
            "statistics.stdev(values)",
            "statistics.pstdev(values)",
            "mean_and_standard_deviation_are_of_the_sample",
        ),
    ),
    *_of(
        "report/comparison.py",
        "report/test_comparison.py",
        (
            "comparison: reference rows compete",
            "{row: scores[row] for row in scores if row in ranked}",
            "scores",
            "the_best_is_marked_and_reference_rows_never_are",
        ),
        (
            "comparison: published figures of any protocol stand beside ours",
            "if figure.means_the_same(protocol, config[label])",
            "if True",
            "published_figures_stand_beside_ours_only_under_the_same_protocol_epochs_and_batch_size",
        ),
        (
            "comparison: what is missing is not counted",
            "if len(by_seed) == wanted:",
            "if by_seed:",
            "missing_and_failed_runs_are_counted",
        ),
    ),
    *_of(
        "results/record.py",
        "report/test_records.py",
        (
            "records: another run's name is believed",
            "if fingerprint_of_record(record) != name:",
            "if False:",
            "a_record_in_a_folder_of_another_run_and_one_with_impossible_figures_are_skipped",
        ),
        (
            "records: protocols need no version",
            "if not wanted <= protocols.keys() or",
            "if False and",
            "records_that_are_nearly_right_are_named_and_skipped",
        ),
        (
            "records: what is no number is believed",
            "if value is not None and not (_is_number(value) and 0 <= value <= 100):",
            "if False:",
            "a_record_in_a_folder_of_another_run_and_one_with_impossible_figures_are_skipped",
        ),
    ),
    *_of(
        "report/provenance.py",
        "report/test_records.py",
        (
            "provenance: other code among the runs of a method is silent",
            "if len(known) > 1]",
            "if not known]",
            "code_that_differs_among_runs_or_has_changed_since_is_said_under_them",
        ),
        (
            "provenance: committed records are held to today's code",
            "if known and not run.entry.committed:",
            "if known:",
            "code_that_differs_among_runs_or_has_changed_since_is_said_under_them",
        ),
    ),
    *_of(
        "results/code.py",
        "results/test_code.py",
        (
            "code: what other modules define does not count",
            "            for module, inner in self.imported.get(name, ()):",
            "            for module, inner in ():",
            "code_counts_for_the_methods_that_reach_it",
        ),
        (
            "code: all of a module counts",
            "chosen = self.defined.get(name, []) if name else",
            "chosen = [] if False else",
            "code_counts_for_the_methods_that_reach_it",
        ),
        (
            "code: docstrings count",
            "(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))",
            "False",
            "comments_layout_docstrings_annotations_and_sentences_of_errors_do_not_count",
        ),
        (
            "code: annotations count",
            'IGNORED = ("annotation", ',
            "IGNORED = (",
            "comments_layout_docstrings_annotations_and_sentences_of_errors_do_not_count",
        ),
        (
            "code: sentences of errors count",
            "if isinstance(node, ast.Raise):",
            "if False:",
            "comments_layout_docstrings_annotations_and_sentences_of_errors_do_not_count",
        ),
        (
            "code: what a module does when imported does not count",
            "            module.effects.append(node)",
            "            pass",
            "a_function_that_is_added_to_a_module_counts_for_nobody_and_what_importing_does_for_all",
        ),
        (
            "code: only a run's last session counts",
            'return [record["code"], *record.get("earlier_code", ())]',
            'return [record["code"]]',
            "the_versions_of_a_record_are_all_that_trained_it",
        ),
    ),
    *_of(
        "training/run.py",
        "test_run.py",
        (
            "run: other code goes unsaid",
            "if not is_other_code(",
            "if True or not is_other_code(",
            "a_run_of_other_code_says_so_and_is_trained_again_when_asked",
        ),
    ),
    *_of(
        "sweep/grid.py",
        "test_sweep.py",
        (
            "sweep: a done run of other code is not trained again",
            'if self.changed and self.config["rerun"]:',
            "if False:",
            "a_done_run_whose_code_has_changed_is_named_and_trained_again_when_asked",
        ),
    ),
    *_of(
        "report/records.py",
        "report/test_records.py",
        (
            "records: two results of one run pass",
            'if any(other.record[key] != first.record[key] for key in ("results", "curves")):',
            "if False:",
            "two_results_of_one_run_are_refused",
        ),
        (
            "records: scales and protocols are mixed",
            "    _refuse_mixtures([",
            "    list([",
            "what_was_made_or_measured_otherwise_is_never_mixed",
        ),
        (
            "records: committed records count before one's own",
            "return Run(cell, entries[0] if entries else None,",
            "return Run(cell, entries[-1] if entries else None,",
            "a_run_of_ones_own_counts_before_a_committed_record_of_it_which_is_said",
        ),
    ),
    *_of(
        "results/fingerprint.py",
        "report/test_records.py",
        (
            "fingerprint: without its data a fold of STL-10 is all of it",
            'for key in ("split", "fold") if key in dataset',
            "for key in ()",
            "records_of_other_images_are_not_those_asked_for",
        ),
    ),
    *_of(
        "report/provenance.py",
        "report/test_records.py",
        (
            "provenance: the command leaves out the threads",
            ', "trainer.threads": record["environment"]["threads"]}',
            "}",
            "the_command_says_what_the_figures_depend_on",
        ),
        (
            "provenance: what was said to all runs is not told",
            "for word in run.cell.said if counts(word)",
            "for word in ()",
            "what_was_said_to_all_runs_stands_under_them",
        ),
        (
            "provenance: only the code that ended a run is named",
            '(record["code"], *record.get("earlier_code", ()))',
            '(record["code"],)',
            "all_code_that_trained_a_run_is_named",
        ),
    ),
    *_of(
        "report/published.py",
        "report/test_comparison.py",
        (
            "published: a part of the images counts as all",
            "alike and network and whole and",
            "alike and network and",
            "nothing_published_stands_beside_other_settings",
        ),
    ),
    *_of(
        "training/launch.py",
        "test_launch.py",
        (
            "launch: an error without words goes before a kill",
            "(telling or causes or failed)[0]",
            "(causes or failed)[0]",
            "what_ended_a_run_is_what_its_cause_says_or_what_was_done_to_it",
        ),
    ),
    *_of(
        "report/configurations.py",
        "report/test_report.py",
        (
            "configurations: remembered though the code has changed",
            'kept["state"] == state',
            "True",
            "configurations_are_remembered_until_conf_or_code_changes",
        ),
        (
            "configurations: all seeds are the first",
            'config["seed"] = cell.seed',
            "pass",
            "remembered_configurations_are_those_composed",
        ),
    ),
    *_of(
        "report/curves.py",
        "report/test_curves.py",
        (
            "curves: an epoch is a pass for every method",
            "(epoch / passes_per_epoch(config), percent)",
            "(epoch, percent)",
            "epochs_are_the_papers_where_the_method_counts_them_so",
        ),
    ),
    # -- sweeps ------------------------------------------------------------------------------------------
    *_of(
        "sweep/grid.py",
        "test_sweep.py",
        (
            "sweep: what another process is at work on is started",
            "elif self.folder.busy():",
            "elif False:",
            "what_another_process_is_at_work_on_is_left_to_it_and_taken_over_when_it_stops",
        ),
        (
            "sweep: what failed is started without being asked for",
            "elif (failure := self.folder.failed()) is not None:",
            "elif (failure := None) is not None:",
            "failed_is_listed_and_tried_again_only_when_asked",
        ),
        (
            "sweep: a damaged record is a run that is left",
            'self.state, self.error, self.damaged = "failed", str(error), True',
            'self.state = "left"',
            "a_damaged_record_is_named_and_neither_believed_nor_tried_again",
        ),
        (
            "sweep: the first dataset that is missing hides the others",
            "missing[key] = str(error)",
            "raise",
            "all_data_that_are_missing_are_told_at_once",
        ),
    ),
    *_of(
        "results/checkpoints.py",
        "results/test_weights.py",
        (
            "weights: pickles may run code",
            'map_location="cpu", weights_only=True',
            'map_location="cpu", weights_only=False',
            "a_pickle_that_would_run_code_is_refused_and_runs_nothing",
        ),
    ),
    *_of(
        "results/keys.py",
        "results/test_weights.py",
        (
            "weights: what a file lacks stays random",
            "missing.append(name)",
            "pass",
            "missing_keys_are_named every_name_is_accounted_for_once",
        ),
        (
            "weights: a larger network's file fits a smaller one",
            "return inside and not head and",
            "return False and",
            "layers_that_the_network_has_not_make_it_another_network",
        ),
        (
            "weights: the classifier makes it another network",
            "inside and not head and",
            "inside and",
            "every_name_is_accounted_for_once",
        ),
    ),
    *_of(
        "results/weights.py",
        "results/test_weights.py",
        (
            "weights: of two stems the first",
            'if stem is None and network["stem"] == "cifar":',
            "if False:",
            "a_stem_that_shapes_do_not_tell_is_asked_for",
        ),
        (
            "weights: of two networks the first",
            'if len(found) > 1 and "" not in found:',
            "if False:",
            "two_networks_in_a_file_must_be_told_apart",
        ),
    ),
    *_of(
        "cli/evaluate.py",
        "test_evaluate.py",
        (
            "evaluate: the dataset's size in place of the file's",
            'if encoder.clean is None or "dataset.size" in said else None',
            "if True else None",
            "our_files_size_holds_unless_one_is_said_and_a_foreign_ones_is_the_datasets",
        ),
    ),
    *_of(
        "training/build.py",
        "test_run.py",
        (
            "baselines: random weights of another seed",
            'random_network(network, config["seed"])',
            'random_network(network, config["seed"] + 1)',
            "the_random_baseline_is_the_network_before_training",
        ),
        (
            "linear: a subset is refitted on all validation images",
            "refit=not limited",
            'refit=config["labels"] is None',
            "validation_labels_are_trained_on_where_no_limit_keeps_labels_away "
            "the_record_says_what_the_probe_was_trained_on",
        ),
    ),
    *_of(
        "evaluation/precision.py",
        "evaluation/test_precision.py",
        (
            "float32: convolutions keep TF32",
            'OPERATIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", ',
            'OPERATIONS = ("cuda.matmul", ',
            "within_all_is_float32_and_afterwards_as_the_user_has_set_it the_switches_are_torchs "
            "networks_are_evaluated_in_float32",
        ),
        (
            "float32: torch's older switches contradict",
            '        torch.set_float32_matmul_precision("highest")\n',
            "",
            "within_all_is_float32_and_afterwards_as_the_user_has_set_it",
        ),
        (
            "float32: the user's convolutions stay changed",
            "restored.callback(setattr, operation,",
            "restored.callback(getattr, operation,",
            "within_all_is_float32_and_afterwards_as_the_user_has_set_it",
        ),
    ),
    *_of(
        "evaluation/evaluator.py",
        "evaluation/test_evaluator.py",
        (
            "evaluator: what the bank holds is embedded again",
            "if torch.isin(wanted, there).all():",
            "if False:",
            "what_the_bank_holds_is_not_embedded_again",
        ),
    ),
    *_of(
        "callbacks/accuracy_monitor.py",
        "callbacks/test_accuracy_monitor.py",
        (
            "monitor: the final table reads an earlier epoch",
            "            if last:",
            "            if curves:",
            "the_monitor_sees_no_test_image_and_the_last_epoch_is_kept_for_the_final_table",
        ),
        (
            "monitor: a curve of two versions",
            "if self.history.rows and self.loaded.get(name, 1) != version:",
            "if False:",
            "a_resumed_run_forgets_the_curves_of_another_version",
        ),
    ),
    *_of(
        "evaluation/baselines.py",
        "evaluation/test_baselines.py",
        (
            "baselines: test chooses their statistics",
            'evaluator.score(splits, [name], "validation")',
            'evaluator.score(splits, [name], "test")',
            "validation_chooses_the_statistics_of_random_weights_and_test_does_not",
        ),
        (
            "baselines: a last batch of one image",
            "enumerate(images.tensor_split(count))",
            "enumerate(images.split(CALIBRATION_BATCH))",
            "no_number_of_images_keeps_random_weights_from_being_scored",
        ),
        (
            "baselines: a damaged file is believed",
            'if content["sha256"] != _digest(content["scores"]):',
            "if False:",
            "a_damaged_file_is_computed_and_written_again",
        ),
    ),
    *_of(
        "cli/embed.py",
        "test_embed.py",
        (
            "embed: names of pictures that were left out",
            "kept.extend(name for name, _ in good)",
            "kept.extend(name for name, _ in batch)",
            "a_broken_picture_stops_or_is_left_out_by_name",
        ),
        (
            "embed: pictures as stored, not as shown",
            "in_colour(upright(image))",
            "in_colour(image)",
            "pictures_are_seen_as_a_viewer_shows_them",
        ),
        (
            "embed: the whole folder is read ahead",
            "following = pool.map(one, parts[0])",
            "following, _ = pool.map(one, parts[0]), pool.map(one, names)",
            "only_a_batch_and_the_next_are_held",
        ),
    ),
    *_of(
        "results/store.py",
        "test_run.py",
        (
            "record: a finished run is trained again",
            "if not self.record.exists():",
            "if True:",
            "a_finished_run_is_shown_again_and_not_trained_again",
        ),
    ),
    *_of(
        "callbacks/checkpointer.py",
        "test_run.py",
        (
            "resume: from another run's checkpoint",
            "if owner != fingerprint:",
            "if False:",
            "a_damaged_or_foreign_checkpoint_is_named_and_kept[foreign]",
        ),
    ),
    *_of(
        "callbacks/recorder.py",
        "callbacks/test_recorder.py",
        (
            "resume: the epoch's mean loss starts anew",
            'torch.tensor(state["loss_sum"], dtype=torch.float64)',
            "torch.zeros((), dtype=torch.float64)",
            "an_epoch_that_was_interrupted_ends_with_the_row_of_an_uninterrupted_one",
        ),
        (
            "resume: the epoch's batches are counted anew",
            'self.batches = state["batches"]',
            "pass",
            "an_epoch_that_was_interrupted_ends_with_the_row_of_an_uninterrupted_one",
        ),
        (
            "record: the loss of an epoch runs on into the next",
            "self.loss_sum, self.batches = torch.zeros_like(self.loss_sum), 0",
            "pass",
            "rows_hold_each_epochs_mean_loss_last_rate_and_figures_exactly",
        ),
    ),
    *_of(
        "results/history.py",
        "callbacks/test_recorder.py",
        (
            "resume: earlier rows are lost",
            '[dict(row) for row in state["rows"]]',
            "[]",
            "an_epoch_that_was_interrupted_ends_with_the_row_of_an_uninterrupted_one",
        ),
        (
            "record: figures are rounded",
            "repr(value)",
            'f"{value:.6g}"',
            "rows_hold_each_epochs_mean_loss_last_rate_and_figures_exactly",
        ),
    ),
    # -- several processes -------------------------------------------------------------------------------
    *_of(
        "distributed.py",
        "test_distributed.py",
        (
            "gather: the backward does not sum",
            "        dist.all_reduce(gradient)\n        first",
            "        first",
            "ranks_together_have_the_loss_and_gradient_of_one_process[2]",
        ),
        (
            "gather: the backward averages",
            "        dist.all_reduce(gradient)\n        first",
            "        dist.all_reduce(gradient)\n        gradient /= world_size()\n        first",
            "ranks_together_have_the_loss_and_gradient_of_one_process[2]",
        ),
    ),
    *_of(
        "distributed.py",
        "test_distributed.py",
        (
            "mean over ranks: a sum",
            "total_over_ranks(x) / world_size()",
            "total_over_ranks(x)",
            "ranks_agree",
        ),
    ),
    *_of(
        "nn/norm.py",
        "nn/test_norm.py",
        (
            "sync batchnorm: ranks' means do not add to the variance",
            "(variances + (means - mean).square())",
            "variances",
            "ranks_together_have_output_gradient_and_statistics_of_one_process[2]",
        ),
        (
            "sync batchnorm: the momentum is upside down",
            "running_mean.lerp_(mean.to(running_mean.dtype), rate)",
            "running_mean.lerp_(mean.to(running_mean.dtype), 1 - rate)",
            "ranks_together_have_output_gradient_and_statistics_of_one_process[2]",
        ),
        (
            "sync batchnorm: the gradient is of this rank's sums",
            "total_over_ranks(sums), counts",
            "sums, counts",
            "ranks_together_have_output_gradient_and_statistics_of_one_process[2]",
        ),
        (
            "sync batchnorm: on a GPU every rank counts itself alone",
            "counts = of_ranks[:, :channels], of_ranks[:, channels:-1], of_ranks[:, -1].contiguous()",
            "counts = of_ranks[:, :channels], of_ranks[:, channels:-1], torch.ones_like(of_ranks[:, -1])",
            "ranks_together_have_output_gradient_and_statistics_of_one_process[2]",
        ),
        (
            "sync batchnorm: running variances are biased",
            "(variance * total / (total - 1))",
            "variance",
            "ranks_together_have_output_gradient_and_statistics_of_one_process[2]",
        ),
    ),
]


# -- the copy -------------------------------------------------------------------------------------


def copied(root: Path) -> Path:
    """The checkout's code and tests in the empty folder ``root``."""
    root.mkdir()
    for folder in ("src", "conf", "tests"):
        shutil.copytree(
            ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    link = root / "src" / "ssl_bench" / "conf"
    if not link.exists():  # where the package is installed, it is mapped there
        link.symlink_to(Path("..", "..", "conf"))
    return root


def run_pytest(root: Path, tests: Sequence[str], output: Path) -> None:
    """In a process of its own: leave with pytest's status; what it says goes to ``output``."""
    os.setsid()  # so that ranks that tests start can be ended with it
    gc.freeze()  # pytest collects garbage again and again, which need not look at the libraries
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(root)
    folders = [os.fspath(root / folder) for folder in ("src", "tests", "tests/methods")]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    # A source file may change twice within the second by which Python dates its bytecode.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    os.environ["COLUMNS"] = "1000"  # the summary shows why a test failed only where a line has room for it
    sys.path[:] = [*folders, *(path for path in sys.path if not Path(path).resolve().is_relative_to(ROOT / "tests"))]
    try:
        import pytest

        import ssl_bench

        assert Path(ssl_bench.__file__).is_relative_to(root), f"{ssl_bench.__file__} is not the copy"
        # The libraries are here before pytest, which warns of those that bring plugins.
        late = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *late, *tests]))
    except BaseException:  # status 1 is for tests that failed
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclass(frozen=True)
class Outcome:
    """How a run of pytest ended."""

    status: int | None  # None: it ran into the time limit
    said: str

    @property
    def verdict(self) -> str:
        """ "caught" where tests failed, "survived" where none did, else "broken": no test judged the mutation."""
        if self.status == 0:
            return "survived"
        return "caught" if self.status == 1 and not MISTAKE.search(self.summary) else "broken"

    @property
    def summary(self) -> str:
        """The first failure, or the last line."""
        if self.status is None:
            return f"no answer within {TIME_LIMIT} seconds"
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), lines[-1] if lines else "")


def outcome(context: multiprocessing.context.ForkServerContext, root: Path, tests: Sequence[str]) -> Outcome:
    """Run ``tests`` of the copy ``root``."""
    output = root / "output.txt"
    process = context.Process(target=run_pytest, args=(root, tuple(tests), output))
    process.start()
    process.join(TIME_LIMIT)
    status = process.exitcode
    if status is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return Outcome(status, output.read_text(errors="replace"))


def judged(context: multiprocessing.context.ForkServerContext, root: Path, mutation: Mutation) -> Outcome:
    """What the mutation's tests say of it; afterwards the copy is whole again."""
    path = mutation.path(root)
    text = path.read_text(encoding="utf-8")
    broken = text.replace(mutation.old, mutation.new)
    if text.count(mutation.old) != 1 or broken == text:
        return Outcome(2, f"its text does not stand once in {mutation.file}")
    if path.suffix == ".py":
        try:
            ast.parse(broken)
        except SyntaxError as error:
            return Outcome(2, f"SyntaxError: {error}")
    path.write_text(broken, encoding="utf-8")
    try:
        return outcome(context, root, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")


def main(words: Sequence[str]) -> int:
    """0 if every chosen mutation is caught, 1 if not, 2 for words that choose nothing and tests that fail untouched."""
    lost = [word for word in words if not any(word in mutation.name for mutation in MUTATIONS)]
    if lost:
        print(f"no mutation has {lost[0]!r} in its name", file=sys.stderr)
        return 2
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    started = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="mutations") as folder:
        root = copied(Path(folder).resolve() / "copy")
        selections = list(dict.fromkeys(mutation.tests for mutation in chosen))
        print(f"{len(selections)} selections of tests on the untouched code", flush=True)
        for tests in selections:
            untouched = outcome(context, root, tests)
            if untouched.status != 0:
                print(f"{untouched.said}\n{' '.join(tests)} must pass before anything is broken: {untouched.summary}")
                return 2
            if re.search(r"\bskipped\b", untouched.said):
                print(f"skipped: {' '.join(tests)}", flush=True)
        escaped = []
        for mutation in chosen:
            found = judged(context, root, mutation)
            reason = "" if found.verdict == "caught" else f"\n          {' '.join(mutation.tests)}: {found.summary}"
            print(f"{found.verdict:<9} {mutation.name}{reason}", flush=True)
            if found.verdict != "caught":
                escaped.append(mutation)
    print(f"{len(chosen) - len(escaped)} of {len(chosen)} caught in {time.monotonic() - started:.0f} s")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
