from megatron_nca.rehearsal.training_log import Validation, parse_log

TEXT = """\
setting number of microbatches to constant 2
 [2026-01-01 00:00:01] iteration        1/      12 | consumed samples:            8 | elapsed time per iteration (ms): 94.7 | learning rate: 5.000000E-04 | global batch size:     8 | lm loss: 5.738929E+00 | loss scale: 1.0 | grad norm: 3.091 | number of skipped iterations:   0 | number of nan iterations:   0 |
Number of parameters in billions:  0.00 [2026-01-01 00:00:02.5] iteration        2/      12 | consumed samples:           16 | learning rate: 1.000000E-03 | global batch size:     8 | lm loss: 5.754470E+00 | loss scale: 1.0 | grad norm: 2.862 | number of skipped iterations:   0 |
 [2026-01-01 00:00:03] iteration        3/      12 | consumed samples:           24 | learning rate: 1.000000E-03 | global batch size:     8 | loss scale: 1.0 | number of skipped iterations:   1 |
--------------------------------------------------------------
 validation loss at iteration 3 | lm loss value: 5.240639E+00 | lm loss PPL: 1.887907E+02 |
 validation loss at iteration 12 on validation set | lm loss value: 5.046150E+00 | lm loss PPL: 1.554229E+02 |
 validation loss at iteration 12 on test set | lm loss value: 5.093904E+00 | lm loss PPL: 1.630252E+02 |
"""  # noqa: E501


def test_an_iteration_has_the_printed_numbers():
    first = parse_log(TEXT).iterations[0]
    assert (first.iteration, first.consumed_samples) == (1, 8)
    assert (first.learning_rate, first.loss, first.grad_norm) == (5e-4, 5.738929, 3.091)
    assert first.fields["elapsed time per iteration (ms)"] == "94.7"


def test_a_line_that_another_print_runs_into_is_read():
    assert parse_log(TEXT).iterations[1].loss == 5.754470


def test_a_skipped_iteration_has_no_loss():
    assert parse_log(TEXT).iterations[2].loss is None
    assert parse_log(TEXT).losses == {1: 5.738929, 2: 5.754470}


def test_a_mean_of_two_iterations_is_not_taken_for_a_loss():
    assert parse_log(TEXT, second_is_mean=True).losses == {1: 5.738929}


def test_learning_rates_are_found_by_iteration():
    assert parse_log(TEXT).learning_rates == {1: 5e-4, 2: 1e-3, 3: 1e-3}


def test_validations_name_their_split():
    assert parse_log(TEXT).validations == (
        Validation(3, None, 5.240639),
        Validation(12, "validation", 5.046150),
        Validation(12, "test", 5.093904),
    )


def test_an_unfinished_line_is_left_out():
    assert parse_log(TEXT[: TEXT.index("5.754470")]).losses == {1: 5.738929}
