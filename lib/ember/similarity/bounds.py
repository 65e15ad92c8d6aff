"""Error bounds that make a fast, inexact product safe: what it rules out is really out.

Every filter of this package computes, for a pair of rows (a, b), a number f that is *never below*
the exact value F of the pair. Pairs with f under the threshold are dropped, the others are scored
again. The whole proof is in how the operands are packed; the product itself is a plain matrix
product in float32, int16 or bfloat16.

Geometry
    v is what the metric compares: a / |a| (cosine), a (inner product), a - c (Euclidean, with a
    constant c). F = v_a.v_b, for Euclidean F = v_a.v_b - |v_a|^2/2 - |v_b|^2/2 = -|a - b|^2 / 2.

Prefix bound
    Q (d, m) has nearly orthonormal columns, G = Q^T Q, E = G - I. The stored prefix is
    p = Q^T v + e, rounding included, with |e| <= eta |v|. Write v = Q p + r. Then

        v_a.v_b = p_a.p_b + p_a^T E p_b + p_a.(Q^T r_b) + (Q^T r_a).p_b + r_a.r_b
        |Q^T r| = |-e - E p| <= (eta + |E|) |v| (1 + eta + |E|)
        |r|^2   = |v|^2 - |p|^2 + 2 e.p + p^T E p
                <= |v|^2 - |p|^2 + (2 eta + |E|) |v|^2 (1 + eta + |E|)^2

    and by Cauchy-Schwarz r_a.r_b <= |r_a| |r_b|. Up to second order the error terms add up to
    4 (eta + |E|) |v_a| |v_b|; ``rotation_slack`` takes 5, which pays for the second order.

Rounding of the product
    A float32 sum of K products, in any order, with or without fused multiply-add, is off by at most
    gamma(K) sum |x_k y_k| <= gamma(K) |x| |y| (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., section 3.1), gamma(K) = K u / (1 - K u), u = 2^-24.

Slack coordinate
    All of the above is of the form  bound = p_a.p_b + |r_a| |r_b| + delta |v_a| |v_b|.  One more
    coordinate s = sqrt(max(|v|^2 - |p|^2, 0) + delta |v|^2) holds it all, because

        s_a s_b >= |r_a| |r_b| + delta |v_a| |v_b|

    (Cauchy-Schwarz again, on (|r|, sqrt(delta) |v|)). So f = (p_a, s_a).(p_b, s_b) is one product
    of width m + 1, and its slack scales with each pair's own norms.

Low precision
    p is rounded to bfloat16 with actual residuals |p - p16| <= eta16 |v|, measured on the block.
    That moves p_a.p_b by at most (2 eta16 + eta16^2) |v_a| |v_b| (1 + ...), and a product returned
    in bfloat16 is rounded once more, by 2^-8 relatively. Products of bfloat16 numbers are exact in
    float32, where oneDNN and cuBLAS add them up.

Integers
    p is scaled by one S for both blocks and rounded to x, off by 1/2 in each coordinate, so that
    p = x / S + e with |e| <= h = 0.51 sqrt(m) / S; the slack coordinate is rounded up, t >= S s.

        p_a.p_b = x_a.x_b / S^2 + e_a.p_b + p_a.e_b - e_a.e_b
        S^2 (p_a.p_b + s_a s_b) <= x_a.x_b + t_a t_b + S^2 h |p_a| + S^2 h (|p_b| + h)

    and |p| <= (1 + delta) |v|. Sums of integers are exact: what is added for rounding is a number
    for each row on the left, by which its floor is lowered, and one for each on the right, with
    which its sums begin; for Euclidean distance they take the halves of the squared norms, too.
    Both are computed in float64, and one is added to each for its rounding.

    S gives the longest row a norm of 32,000, and (x, t) one below 32,000 + sqrt(m) / 2 + 1: the
    coordinates fit int16, and sums fit int32, as |x_a.x_b + t_a t_b| < 2^30, the halves
    S^2 |v|^2 / 2 < 2^29 and S^2 h (|v| + h) < 2^24 for up to a million dimensions.

Underflow
    A coordinate of p is further off by d 2^-150 at most where it is no normal float32 number. For
    rows that are not much longer than that it is not small beside eta |v|, and is paid for by
    ``SHORT``, which is added to s: SHORT s_b >= SHORT sqrt(delta) |v_b|. In integers the 0.01 in h
    pays for it, or the scores of all rows are below ``TINY``. Products that underflow add less
    than ``TINY`` as long as no norm exceeds ``MAX_NORM``.
"""

from __future__ import annotations

import math

UNIT32 = 2.0**-24
"""Unit roundoff of float32."""
UNIT16 = 2.0**-8
"""Unit roundoff of bfloat16."""
EXACT = 1e-12
"""Bound on the relative error of the float64 scores themselves, whose sums are pairwise."""
TINY = 1e-37
"""Absolute allowance for underflow in float32."""
SHORT = 1e-34
"""Allowance in the slack coordinate for prefixes that are no normal float32 numbers."""
MAX_NORM = 1e15
"""Norms above this could overflow a float32 product."""
MIN_NORM = 1e-15
"""Products of rows could be lost to underflow when one of them has a smaller norm."""


def gamma(terms: int) -> float:
    """Bound on the relative error of a float32 sum of ``terms`` products, in any order."""
    return terms * UNIT32 / (1.0 - terms * UNIT32)


def rotation_slack(dimension: int, prefix: int, orthogonality: float) -> float:
    """Bound on the error, relative to |v_a| |v_b|, of a float32 prefix of a rotated vector.

    ``orthogonality`` is the norm |E| of Q^T Q - I for the columns that are used. The prefix comes
    from a float32 product with ``dimension`` terms (each of ``prefix`` coordinates is off by at
    most gamma(dimension) |v|) of a vector that was itself rounded (2 u for division and rounding).
    """
    eta = math.sqrt(prefix) * gamma(dimension) * (1.0 + orthogonality) + 2.0 * UNIT32
    return 5.0 * (eta + orthogonality) + product_slack(prefix)


def product_slack(terms: int) -> float:
    """Bound on the error of the packed float32 product itself, relative to |v_a| |v_b|.

    The packed width is ``terms`` plus at most three coordinates; the packed norm exceeds |v| by
    second-order terms, and the packed halves of the squared norms (Euclidean) by a factor: 4 covers
    both.
    """
    return 4.0 * gamma(terms + 4) + EXACT


def dot_slack(dimension: int) -> float:
    """Bound on |float32 dot product - exact value| relative to |a| |b|, for stored rows."""
    return gamma(dimension) + 8.0 * UNIT32 + EXACT


def bfloat16_slack(residual: float) -> float:
    """Bound on what bfloat16 operands and a bfloat16 result add, relative to |v_a| |v_b|.

    ``residual`` is the largest |p - bfloat16(p)| / |v| of the rows at hand.
    """
    return (2.0 * residual + residual * residual) * 1.02 + UNIT16 * 1.02


def int16_error(width: int, scale: float) -> float:
    """Bound on |p - x / scale| of ``width`` coordinates rounded to integers x, in float64."""
    return 0.51 * math.sqrt(width) / scale
