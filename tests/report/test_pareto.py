import random

from lit_compress.report.pareto import pareto_front


def test_front_by_hand():
    costs = [1, 2, 3, 4, 5]
    qualities = [0.5, 0.7, 0.6, 0.7, 0.9]
    assert pareto_front(costs, costs, qualities) == [0, 1, 4]


def test_equal_points_are_both_on_the_front():
    assert sorted(pareto_front([1, 1], [1, 1], [0.5, 0.5])) == [0, 1]


def test_exact_costs_agree_with_the_definition():
    draw = random.Random(0)
    for _ in range(200):
        n = draw.randint(1, 12)
        costs, qualities = [draw.randint(1, 6) for _ in range(n)], [draw.randint(1, 6) for _ in range(n)]
        points = list(zip(costs, qualities, strict=True))
        beaten = {
            i
            for i, (c, q) in enumerate(points)
            if any(oc <= c and oq >= q and (oc, oq) != (c, q) for oc, oq in points)
        }
        front = pareto_front(costs, costs, qualities)
        assert set(front) == set(range(n)) - beaten
        assert [costs[i] for i in front] == sorted(costs[i] for i in front)


def test_costs_within_their_spread_count_as_equal():
    # The second is better, and not measurably slower than the first.
    assert pareto_front([3.9, 4.0], [4.2, 4.3], [0.80, 0.85]) == [1]
    # Here it is slower beyond doubt: both are worth having.
    assert pareto_front([3.9, 4.4], [4.2, 4.6], [0.80, 0.85]) == [0, 1]


def test_quality_never_falls_along_the_front():
    draw = random.Random(1)
    for _ in range(200):
        low = [draw.uniform(1, 9) for _ in range(10)]
        high = [cost + draw.uniform(0, 2) for cost in low]
        qualities = [draw.randint(1, 8) for _ in range(10)]
        front = pareto_front(low, high, qualities)
        assert max(qualities) in [qualities[i] for i in front]
        assert [qualities[i] for i in front] == sorted(qualities[i] for i in front)
