"""What to ask next: the value of a question, and which may be asked at all."""

import math
from importlib.resources import files

import pytest

from rarealert.screening.next_questions import (
    field_questions,
    finding_question,
    finding_questions,
    load_knowledge,
    next_questions,
    with_finding,
)
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


def visit(**fields):
    given = {"age_years": 34, "sex": "female", "chief_complaint": "Muscle cramps for months."}
    return Case(case_id="v", source="s", **{**given, **fields})


def by_words(words):
    """Log-odds as the sum over the words that the visit states."""

    def score(readings):
        odds = [sum(w for word, w in words.items() if f"is {word}" in r.text) for r in readings]
        return [1 / (1 + math.exp(-each)) for each in odds]

    return score


def ask(case, score, knowledge, **options):
    reading = read_visit(case)
    [risk] = score([reading])
    return next_questions(reading, risk, score, knowledge, **options)


def keys(found):
    return [question.key for question in found]


def test_the_expected_change_is_the_mean_absolute_change_over_the_answers(knowledge):
    case = visit(family_history="Parents are well.", vitals="Pulse 70.", past_medical_history="-")
    [first] = ask(case, by_words({}), knowledge, count=1).findings
    assert first.expected_change == 0  # nothing moves a scorer that reads nothing
    found = ask(case, by_words({first.wording: 2.0}), knowledge, count=1)
    [best] = found.findings
    assert (best.key, found.fields) == (first.key, ())
    moved = 1 / (1 + math.exp(-2)) - 0.5
    assert best.expected_change == pytest.approx(best.answers[0].chance(0.5) * moved)
    for chances in ("chance_if_rare", "chance_if_common"):
        assert sum(getattr(answer, chances) for answer in best.answers) == pytest.approx(1)


@pytest.mark.parametrize("certain", [-1000.0, 0.0, 40.0])
def test_the_profiles_order_the_findings_whatever_the_student_makes_of_them(knowledge, certain):
    case = visit()
    wanted = finding_questions(case, 0.5, knowledge.beliefs(read_visit(case)), knowledge, 3)
    for moving in wanted:
        words = {moving.wording: 4.0, "cramps": certain}

        def score(readings, words=words):
            odds = [sum(w for word, w in words.items() if word in r.text) for r in readings]
            return [1 / (1 + math.exp(-each)) if each > -700 else 0.0 for each in odds]

        found = ask(case, score, knowledge)
        assert keys(found.findings) == keys(wanted)
        changes = [question.profile_change for question in found.findings]
        assert changes == sorted(changes, reverse=True)


def test_absent_fields_stand_apart_by_what_the_student_makes_of_their_answers(knowledge):
    def score(readings):
        lines = [each.lines for each in readings]
        odds = [3 * ("family_history" in held) + ("vitals" in held) for held in lines]
        return [1 / (1 + math.exp(-each)) for each in odds]

    found = ask(visit(), score, knowledge)
    assert keys(found.fields) == ["family_history", "vitals", "past_medical_history"]
    changes = [question.expected_change for question in found.fields]
    assert changes == pytest.approx([1 / (1 + math.exp(-x)) - 0.5 for x in (3, 1, 0)])
    assert {question.profile_change for question in found.fields} == {None}
    assert len(found.findings) == 3
    again = ask(visit(), score, knowledge, skip=frozenset({"vitals"}))
    assert keys(again.fields) == ["family_history", "past_medical_history"]


def test_findings_split_rare_from_common_by_bayes_rule(knowledge):
    case = visit()
    beliefs = knowledge.beliefs(read_visit(case))
    found = finding_questions(case, 0.3, beliefs, knowledge, 8)
    values = [question.profile_change for question in found]
    assert values == sorted(values, reverse=True)
    rare, common = knowledge.chances(beliefs)
    places = {finding.hpo_id: place for place, finding in enumerate(knowledge.askable)}
    for question in found:
        yes_rare, yes_common = (float(each[places[question.key]]) for each in (rare, common))
        chance = 0.3 * yes_rare + 0.7 * yes_common
        after_yes, after_no = 0.3 * yes_rare / chance, 0.3 * (1 - yes_rare) / (1 - chance)
        change = chance * abs(after_yes - 0.3) + (1 - chance) * abs(after_no - 0.3)
        assert question.profile_change == pytest.approx(change, rel=1e-4)
        assert question.answers[0].chance(0.3) == pytest.approx(chance)


def test_what_is_known_or_was_asked_is_not_asked(knowledge):
    case = visit(history_of_present_illness="There is fever. There is no weakness.")
    beliefs, above = knowledge.beliefs(read_visit(case)), knowledge.ontology.ancestors
    present, excluded = set(beliefs.work.present), set(beliefs.work.excluded)
    assert {"HP:0001945"} <= present
    assert excluded
    first = finding_questions(case, 0.5, beliefs, knowledge, 30)
    given = set().union(*(above(term) for term in present))
    for question in first:
        assert question.key not in given
        assert not excluded & above(question.key)
    for one in first:
        kin = [other for other in first if other is not one and one.key in above(other.key)]
        assert not kin
    skip = frozenset(question.key for question in first[:3])
    again = finding_questions(case, 0.5, beliefs, knowledge, 30, skip)
    assert not skip & {question.key for question in again}


def test_nobody_is_asked_what_age_or_sex_rules_out(knowledge):
    infant = visit(age_years=0.5, sex="male", chief_complaint="Cries and feeds badly.")
    found = finding_questions(infant, 0.5, knowledge.beliefs(read_visit(infant)), knowledge, 200)
    findings = {finding.hpo_id: finding for finding in knowledge.askable}
    assert len(found) == 200
    assert all(findings[question.key].possible(0.5, "male") for question in found)


def test_an_answer_is_read_back_from_the_visit(knowledge):
    case = visit(physical_examination="Reflexes weak.")
    for question in finding_questions(
        case, 0.5, knowledge.beliefs(read_visit(case)), knowledge, 25
    ):
        yes, no = (answer.case for answer in question.answers)
        assert question.key in read_visit(yes).affirmed
        assert question.key in read_visit(no).denied


def test_absent_fields_are_asked_with_answers_that_make_up_one(knowledge):
    bare = Case(case_id="v", source="s", chief_complaint="Tired.")
    asked = {question.key: question for question in field_questions(bare)}
    assert {"age_years", "sex", "family_history", "past_medical_history", "vitals"} == set(asked)
    for question in asked.values():
        for risk in (0.02, 0.5):
            assert sum(each.chance(risk) for each in question.answers) == pytest.approx(1)
        assert all(getattr(answer.case, question.key) is not None for answer in question.answers)
        assert all(Case.model_validate(dict(answer.case)) for answer in question.answers)
    assert "sex" not in {question.key for question in field_questions(visit())}


def test_findings_point_to_the_heads_of_the_diseases_that_have_them(knowledge):
    case = visit(
        history_of_present_illness="Muscle pain on exertion and dark urine after it, "
        "exercise intolerance, muscle cramps."
    )
    heads = knowledge.heads(knowledge.beliefs(read_visit(case)))
    assert len(heads) == 4
    assert "Rare inborn errors of metabolism" in [each.head for each in heads[:2]]
    shares = [each.share for each in heads]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert knowledge.heads(knowledge.beliefs(read_visit(visit(chief_complaint="Check-up.")))) == ()


def test_the_lay_questions_are_of_findings_that_can_be_asked_for(knowledge):
    text = files("rarealert.screening").joinpath("question_wordings.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    findings = {finding.hpo_id: finding for finding in knowledge.askable}
    assert len({row[0] for row in rows}) == len(rows)
    for key, name, question in rows:
        assert knowledge.ontology.name(key) == name
        assert question.endswith("?")
        asked = finding_question(visit(), findings[key], (0.5, 0.5), 0.0)
        assert asked.text == question
        assert not (asked.kind == "symptom" and question.startswith("On examination"))


def test_an_answer_to_a_full_field_keeps_the_answer_and_the_limit(knowledge):
    full = ("Tired. " * 3000)[: 20_000 - 1] + "."
    case = visit(history_of_present_illness=full, physical_examination=full)
    for finding in knowledge.askable:
        for present in (True, False):
            given = with_finding(case, finding, present=present)
            Case.model_validate(given.model_dump())
            field = "history_of_present_illness" if finding.symptom else "physical_examination"
            assert getattr(given, field).endswith(f"{(finding.lay or finding.clinical)[0]}.")
