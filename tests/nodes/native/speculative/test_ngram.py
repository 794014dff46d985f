from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.engine.speculative.ngram import NgramProposer


def request(tokens, id="a"):
    return Request(id, tokens, SamplingParams(max_tokens=100))


def test_what_followed_before_is_guessed():
    assert NgramProposer().propose([(request([1, 2, 3, 4, 5, 9, 1, 2]), 3)]) == [[3, 4, 5]]


def test_the_longest_and_then_the_latest_match_counts():
    assert NgramProposer().propose([(request([1, 2, 3, 7, 2, 3, 8, 1, 2, 3]), 1)]) == [[7]]
    assert NgramProposer().propose([(request([2, 3, 7, 5, 2, 3, 8, 6, 2, 3]), 1)]) == [[8]]


def test_nothing_is_guessed_of_new_text():
    assert NgramProposer().propose([(request([1, 2, 3, 4]), 4), (request([1], "b"), 4)]) == [[], []]


def test_what_goes_round_is_guessed_to_go_on():
    assert NgramProposer().propose([(request([5, 5, 5, 5, 5, 5]), 4)]) == [[5, 5, 5, 5]]
    assert NgramProposer().propose([(request([1, 2, 3, 1, 2, 3, 1, 2]), 5)]) == [[3, 1, 2, 3, 1]]


def test_generated_tokens_are_looked_in_as_they_come():
    proposer, growing = NgramProposer(), request([1, 2, 3])
    assert proposer.propose([(growing, 2)]) == [[]]
    for token, expected in ((8, []), (1, []), (2, [3, 8])):
        growing.extend(token)
        assert proposer.propose([(growing, 2)]) == [expected]


def test_requests_do_not_mix():
    proposer = NgramProposer()
    proposer.propose([(request([1, 2, 3]), 2)])
    assert proposer.propose([(request([9, 1, 2], "b"), 2)]) == [[]]
    proposer.forget("a")
    proposer.forget("b")
    assert not proposer._indices
