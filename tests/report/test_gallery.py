from __future__ import annotations

from collections import Counter

from kvg.report.gallery import QuestionView, pick, questions_of


def test_the_same_question_of_several_runs_is_one(make_case):
    runs = {
        "a": [make_case("k0"), make_case("k1", right=False), make_case("k1", artifact="blur", strength=2)],
        "b": [make_case("k1"), make_case("k2")],
    }
    found = questions_of(runs)
    assert [(one.case.key, list(one.answers), one.verdicts) for one in found] == [
        ("k0", ["a"], (True,)),
        ("k1", ["a", "b"], (False, True)),
        ("k2", ["b"], (True,)),
    ]


def test_sets_of_other_names_are_the_same_where_each_run_knows_one(make_case):
    found = questions_of({"a": [make_case("k0", set="mine")], "b": [make_case("k0", set="yours", right=False)]})
    assert [one.verdicts for one in found] == [(True, False)]
    apart = questions_of({"a": [make_case("k0", set="x"), make_case("k0", set="y")], "b": [make_case("k0", set="z")]})
    assert len(apart) == 3


def test_categories_and_verdicts_are_shown_alike_however_rare(make_case):
    cases = [make_case(f"b{n}", right=n != 7) for n in range(100)]  # one of a hundred is wrong
    cases += [make_case(f"d{n}", right=n < 5, category="dog") for n in range(10)]
    questions = questions_of({"a": cases})
    found = pick(questions, 12, seed=0)
    assert Counter(one.case.category for one in found) == {"bird": 6, "dog": 6}
    assert Counter(one.verdicts for one in found if one.case.category == "dog") == {(True,): 3, (False,): 3}
    assert "b7" in [one.case.key for one in found]
    order = [questions.index(one) for one in found]
    assert order == sorted(order)


def test_the_lot_follows_the_seed_and_all_is_shown_where_there_is_room(make_case):
    questions = questions_of({"a": [make_case(f"k{n}") for n in range(50)]})
    chosen = [[one.case.key for one in pick(questions, 10, seed)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert pick(questions, 50, 0) == pick(questions, 500, 3) == questions
    assert pick(questions, 0, 0) == []
    assert pick([QuestionView({"a": make_case()})], 3, 0)[0].case.key == "k0"
