import math
import random

import pytest
from scipy import stats

from tf_gnc.experiments.compare.statistics import (
    Difference,
    Spread,
    holm,
    paired_difference,
    spread,
)


def test_spread__hand_numbers__divides_by_n_minus_1():
    # Squared distances from 5: 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, over 7.
    found = spread([2, 4, 4, 4, 5, 5, 7, 9])
    assert found == Spread(8, 5.0, pytest.approx(math.sqrt(32 / 7)))


def test_spread__missing_values__are_left_out_of_the_count():
    assert spread([None, 1.0, 3.0]).count == 2
    assert spread([None, 1.5]) == Spread(1, 1.5, None)
    assert spread([None]) == Spread(0, None, None)


def test_paired_difference__hand_numbers__interval_from_the_t_table():
    # Differences 1, 2, 3: mean 2, s = 1; t for 95 % and 2 degrees is 4.303.
    found = paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    reach = 4.303 / math.sqrt(3)
    assert (found.count, found.mean) == (3, 2.0)
    assert found.low == pytest.approx(2 - reach, abs=1e-3)
    assert found.high == pytest.approx(2 + reach, abs=1e-3)
    # With 2 degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2).
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_paired_difference__random_pairs__as_scipy_says(count, confidence):
    draw = random.Random(count)
    values = [draw.gauss(0.3, 1) for _ in range(count)]
    baseline = [draw.gauss(0, 1) for _ in range(count)]
    found = paired_difference(values, baseline, confidence)
    theirs = stats.ttest_rel(values, baseline)
    interval = theirs.confidence_interval(confidence)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)


def test_paired_difference__a_run_missing__takes_its_partner_along():
    found = paired_difference([1.0, None, 4.0, 9.0], [0.0, 5.0, None, 6.0])
    assert found == paired_difference([1.0, 9.0], [0.0, 6.0])
    assert (found.count, found.mean) == (2, 2.0)


def test_paired_difference__one_pair__has_a_mean_and_no_interval():
    assert paired_difference([3.0], [1.0]) == Difference(1, 2.0)
    assert paired_difference([None], [1.0]) == Difference(0, None)


def test_paired_difference__ties__have_no_interval():
    assert paired_difference([0.5, 0.7], [0.5, 0.7]) == Difference(2, 0.0)
    # The same difference but for the rounding of float32.
    found = paired_difference([0.99, 0.98 + 6e-8], [0.98, 0.97])
    assert found.mean == pytest.approx(0.01, abs=1e-7)
    assert found.p is found.low is found.high is None


def test_paired_difference__one_test_example_apart__has_an_interval():
    # One of the 10,000 of CIFAR's test pictures is far from rounding.
    assert paired_difference([0.9, 0.9001], [0.9, 0.9]).p is not None


def test_holm__hand_numbers__grow_with_what_is_left_and_never_fall():
    # Sorted: 0.01 * 4, then 0.02 * 3, then 0.03 * 2 = 0.06, then 0.6 * 1.
    found = holm([0.6, 0.03, None, 0.01, 0.02])
    assert found == pytest.approx([0.6, 0.06, None, 0.04, 0.06])
    # The second, 0.021 * 1, would be smaller than the first, 0.02 * 2.
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.3]) == [None, 0.3]
    assert holm([]) == []
