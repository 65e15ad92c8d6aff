"""One step of writing a text: which token comes next, whether that is beyond doubt, when to stop.

A row's text may not depend on the rows it shares a batch with. What it does depend on is made so:
positions and attention leave padding out, and a row's random numbers come from a counter under a
key of its own. Rounding remains: sums are taken in another order in a batch of another shape, and
scores differ in their last bits. A choice that such a difference could turn is marked as in doubt;
the caller throws that row's text away and runs the row alone, where nothing varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ember.worker.spec import Sampling

__all__ = ["SLACK", "Chooser", "Stops", "gumbel", "stream_key"]

SLACK = 2e-5
"""Scores that are as close as this, relative to the largest of a step, count as tied.

In float32 the scores of a GPT-2 of 12 layers differ by up to 2e-6 between batches.
"""

# Beyond the last of the k best, so many more are looked at for ties.
_SPARE = 8
_MASK = (1 << 64) - 1
# SplitMix64's.
_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


class Chooser:
    """Picks the next token of each row; a logits processor of transformers, the last of them.

    It hands back scores whose largest is the token to take. sampling: None takes the best token.
    keys: (n,) one for each row, see `stream_key`. careful: mark what is in doubt.
    """

    def __init__(
        self, torch: Any, sampling: Sampling | None, keys: Sequence[int], *, careful: bool
    ) -> None:
        self._torch = torch
        self._sampling = sampling
        self._keys = keys
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
        """
        torch = self._torch
        scores, slack = scores / how.temperature, slack / how.temperature
        vocabulary = scores.shape[1]
        k = min(how.top_k or vocabulary, vocabulary)
        values, tokens = scores.topk(min(k + _SPARE, vocabulary), dim=1)  # best first
        keys = torch.tensor(self._keys, dtype=torch.int64, device=scores.device)
        race = values.double() + gumbel(torch, keys, self._step, tokens)

        rank = torch.arange(values.shape[1], device=values.device)
        allowed = (rank < k).expand_as(values)
        floor = values[:, k - 1 : k]
        near = values >= floor - slack
        shares = values.where(allowed, -torch.inf).softmax(dim=1)
        if how.top_p is not None:
            before = shares.cumsum(dim=1) - shares
            inside = allowed & (before < how.top_p)
            # A slack s in all scores changes a share by a factor of exp(2 s) at most.
            wider = allowed & (before < how.top_p + 4 * slack)
            floor = values.where(wider, torch.inf).amin(dim=1, keepdim=True)
            allowed, near = inside, near & (values >= floor - slack)

        place = race.where(allowed, -torch.inf).argmax(dim=1, keepdim=True)
        best = race.where(near, -torch.inf).topk(2, dim=1)
        sure = (best.indices[:, :1] == place) & (best.values[:, :1] - best.values[:, 1:] > slack)
        # Is the winner inside the cut even if all that is about as good came before it?
        rivals = values > values.gather(1, place) - slack
        sure &= rivals.sum(dim=1, keepdim=True) <= k
        if values.shape[1] < vocabulary:
            # Ties beyond what was looked at; what may not come is no tie.
            last = values[:, -1:]
            sure &= (last < values[:, k - 1 : k] - slack) | last.isneginf()
        if how.top_p is not None:
            ahead = (shares * rivals).sum(dim=1, keepdim=True) - shares.gather(1, place)
            sure &= ahead < how.top_p - 4 * slack
        return tokens.gather(1, place), sure[:, 0]


class Stops:
    """Ends a row whose new text holds a stop string; a stopping criterion of transformers."""

    def __init__(self, torch: Any, tokenizer: Any, strings: Sequence[str], chooser: Chooser):
        self._torch = torch
        self._tokenizer = tokenizer
        self._strings = strings
        self._chooser = chooser
        # A token stands for a byte at least, special ones aside.
        self._reach = max(len(string.encode()) for string in strings) + _SPARE
        self.ended: dict[int, int] = {}
        """Rows that ended so, with the number of their tokens."""

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        new = input_ids[:, self._chooser.width :]
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


def stream_key(seed: int, key: int) -> int:
    """Where the random numbers of a row start: 64 bits with a sign, of a seed and the row's key."""
    word = _mix_int((_mix_int(seed & _MASK) + key) & _MASK)
    return word - (1 << 64) if word >> 63 else word


def gumbel(torch: Any, keys: Any, step: int, tokens: Any) -> Any:
    """Gumbel noise (n, m) float64 for tokens (n, m) int64 at a step of rows with keys (n,) int64.

    A function of key, step and token alone: the output of the generator SplitMix64 (Steele, Lea &
    Flood, OOPSLA 2014) at the token's place in a sequence that key and step start.
    """
    start = _mix(keys + _signed((step + 1) * 0xD1342543DE82EF95))
    words = _mix(start[:, None] + (tokens + 1) * _signed(_GAMMA))
    uniform = (((words >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log1p(-uniform))


def _signed(word: int) -> int:
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


def _mix(words: Any) -> Any:
    """The output function of SplitMix64 on int64 tensors, whose products wrap around."""
    words = (words ^ ((words >> 30) & ((1 << 34) - 1))) * _signed(_FIRST)
    words = (words ^ ((words >> 27) & ((1 << 37) - 1))) * _signed(_SECOND)
    return words ^ ((words >> 31) & ((1 << 33) - 1))


def _mix_int(word: int) -> int:
    word = ((word ^ (word >> 30)) * _FIRST) & _MASK
    word = ((word ^ (word >> 27)) * _SECOND) & _MASK
    return word ^ (word >> 31)
