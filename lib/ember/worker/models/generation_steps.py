"""One step of generating a text: the next token, whether it is beyond doubt, when to stop.

A row's text must not depend on the rows it shares a batch with. Positions and attention leave
padding out, and a row's random numbers come from a counter under a seed of its own. Rounding
remains: in a batch of another shape sums are taken in another order, and scores differ in their
last bits. A choice that such a difference could turn is marked as in doubt; the caller discards
that row's text and runs the row alone, where nothing varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ember.worker.spec import Sampling
from ember.worker.splitmix import GAMMA, mix, signed

__all__ = ["SLACK", "Stops", "TokenSampler", "gumbel", "row_seed"]

SLACK = 2e-5
"""Scores that are as close as this, relative to the largest of a step, count as tied.

In float32 the scores of a GPT-2 of 12 layers differ by up to 2e-6 between batches.
"""

# So many more than the k best are searched for ties.
_SPARE = 8
# Between the seeds of the steps of a row: odd, and far from SplitMix64's own step.
_STEP = 0xD1342543DE82EF95


class TokenSampler:
    """Picks the next token of each row; a logits processor of transformers, the last of them.

    It returns scores whose largest is the token to take. sampling: None takes the best token.
    seeds: (n,) one for each row, see `row_seed`. careful: mark what is in doubt.
    """

    def __init__(
        self, torch: Any, sampling: Sampling | None, seeds: Sequence[int], *, careful: bool
    ) -> None:
        self._torch = torch
        self._sampling = sampling
        self._seeds = seeds
        self._careful = careful
        self.width = 0
        """Tokens of the prompt, padding included."""
        self._step = 0
        self._doubtful: list[Any] = []
        self._broken: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """input_ids: (n, t) so far. scores: (n, vocabulary), -inf for what may not come."""
        torch = self._torch
        if not self._step:
            self.width = input_ids.shape[1]
        self._broken.append((scores.isnan() | scores.isposinf()).any(dim=1))
        # Infinite scores are rules, not measurements.
        slack = scores.abs().where(scores.isfinite(), 0.0).amax(dim=1, keepdim=True).float() * SLACK
        if self._sampling is None:
            best = scores.topk(2, dim=1).values.float()
            sure = best[:, 0] - best[:, 1] > slack[:, 0]
        else:
            chosen, sure = self._draw(scores.float(), slack, self._sampling)
            scores = torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)
        self._doubtful.append(~sure & self._careful)
        self._step += 1
        return scores

    def in_doubt(self) -> list[list[bool]]:
        """Could another batch have led to another token? For each row, step by step."""
        return self._by_row(self._doubtful)

    def not_finite(self) -> list[list[bool]]:
        """Did the model give NaN or infinity? For each row, step by step."""
        return self._by_row(self._broken)

    def _by_row(self, marks: list[Any]) -> list[list[bool]]:
        rows: list[list[bool]] = self._torch.stack(marks, dim=1).tolist()
        return rows

    def _draw(self, scores: Any, slack: Any, how: Sampling) -> tuple[Any, Any]:
        """The token (n, 1) drawn for each row, and whether the draw is beyond doubt (n,).

        The Gumbel-max trick: of scores to each of which independent Gumbel noise is added, the
        largest is token i with probability softmax(scores)[i] (Gumbel, Statistical Theory of
        Extreme Values, 1954; Maddison, Tarlow & Minka, NeurIPS 2014).

        A draw is beyond doubt where its token is inside top_k and top_p, and wins against all
        tokens that may be inside, even if all scores are off by half the slack. Shares are then
        off by a factor of exp(slack), for which four times the slack is allowed.
        """
        torch = self._torch
        scores, slack = scores / how.temperature, slack / how.temperature
        vocabulary = scores.shape[1]
        k = min(how.top_k or vocabulary, vocabulary)
        top_p = torch.inf if how.top_p is None else how.top_p
        # All (n, k + spare), best first.
        values, tokens = scores.topk(min(k + _SPARE, vocabulary), dim=1)
        seeds = torch.tensor(self._seeds, dtype=torch.int64, device=scores.device)
        race = values.double() + gumbel(torch, seeds, self._step, tokens)
        in_k = torch.arange(values.shape[1], device=values.device) < k
        shares = values.where(in_k, -torch.inf).softmax(dim=1)
        before = shares.cumsum(dim=1) - shares
        place = race.where(in_k & (before < top_p), -torch.inf).argmax(dim=1, keepdim=True)

        may_be_inside = in_k & (before < top_p + 4 * slack)
        floor = values.where(may_be_inside, torch.inf).amin(dim=1, keepdim=True) - slack
        others = race.where(values >= floor, -torch.inf).scatter(1, place, -torch.inf)
        sure = race.gather(1, place) - others.amax(dim=1, keepdim=True) > slack
        # Inside, even if all tokens that are about as good come before it?
        rivals = values > values.gather(1, place) - slack
        sure &= rivals.sum(dim=1, keepdim=True) <= k
        ahead = (shares * rivals).sum(dim=1, keepdim=True) - shares.gather(1, place)
        sure &= ahead < top_p - 4 * slack
        if values.shape[1] < vocabulary:  # there may be ties that topk left out
            last = values[:, -1:]
            sure &= (last < floor) | last.isneginf()
        return tokens.gather(1, place), sure[:, 0]


class Stops:
    """Ends a row whose new text holds a stop string; a stopping criterion of transformers."""

    def __init__(self, torch: Any, tokenizer: Any, strings: Sequence[str], sampler: TokenSampler):
        self._torch = torch
        self._tokenizer = tokenizer
        self._strings = strings
        self._sampler = sampler
        # A token stands for a byte at least, special ones aside.
        self._reach = max(len(string.encode()) for string in strings) + _SPARE
        self.ended: dict[int, int] = {}
        """Rows that ended so, with the number of their tokens."""

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        new = input_ids[:, self._sampler.width :]
        tails = new[:, -self._reach :].tolist()
        for row, text in enumerate(self._tokenizer.batch_decode(tails, skip_special_tokens=True)):
            if row not in self.ended and any(string in text for string in self._strings):
                self.ended[row] = new.shape[1]
        ended = [row in self.ended for row in range(len(tails))]
        return self._torch.tensor(ended, device=input_ids.device)

    def cut(self, text: str) -> str:
        """`text` up to the first stop string."""
        places = [text.find(string) for string in self._strings if string in text]
        return text[: min(places)] if places else text


def row_seed(seed: int, key: int) -> int:
    """Where the random numbers of a row start, an int64: of a seed and the row's key."""
    return int(mix(mix(np.array([signed(seed)])) + key)[0])


def gumbel(torch: Any, seeds: Any, step: int, tokens: Any) -> Any:
    """Gumbel noise (n, m) float64 for tokens (n, m) int64 at a step of rows with seeds (n,) int64.

    A function of seed, step and token alone: the word of SplitMix64 at the token's place in a
    sequence that seed and step start.
    """
    start = mix(seeds + signed((step + 1) * _STEP))
    words = mix(start[:, None] + (tokens + 1) * GAMMA)
    uniform = (((words >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log1p(-uniform))
