"""Error bounds that make a fast, inexact product safe: what it rules out is really out.

Every filter of this package computes, for a pair of rows (a, b), a number f that is *never below*
the exact value F of the pair. Pairs with f under the threshold are dropped, the others are scored
again. The whole proof is in how the operands are packed; the product itself is a plain matrix
product in float32 or integers.

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

Integers
    Write p = (h, l) with the first 16 coordinates, which most of |p| is due to, in h. They are
    scaled by S for both blocks and rounded to x, in int16, off by 1/2 in each coordinate, so that
    h = x / S + g with |g| <= eps = 0.51 sqrt(16) / S. The others are scaled by T and rounded to y,
    in int8; n = |y| / T and e = |l - y / T| are known for each row. Slack coordinates are rounded
    up: t >= S s, and so are S n and S e.

        h_a.h_b = x_a.x_b / S^2 + g_a.h_b + h_a.g_b - g_a.g_b
        l_a.l_b <= y_a.y_b / T^2 + n_a e_b + e_a (n_b + e_b)
        S^2 (p_a.p_b + s_a s_b) <= x_a.x_b + (S / T)^2 y_a.y_b + t_a t_b
                                   + S n_a S e_b + S e_a S (n_b + e_b)
                                   + S^2 eps |h_a| + S^2 eps (|h_b| + eps)

    and |h| <= (1 + delta) |v|. (S / T)^2 is an integer, and sums of integers are exact: what is
    added for rounding in the last line is a number for each row on the left, by which its floor is
    lowered, and one for each on the right, with which its sums begin; for Euclidean distance they
    take the halves of the squared norms, too. Both are computed in float64, and one is added to
    each for its rounding; that of n <= 2 |l| and e <= |l| is paid for by the 0.01 in eps.

    Products of int8 are added in int16 modulo 2^16, in two sums of half the coordinates each. A row
    is scaled by less than T where the norm of such a half exceeds 181, so both sums are below 2^15.
    The instruction takes positive numbers on the left: 64 is added to y_a, which is at most 63 in
    size, and the sums begin with -64 times the sum of y_b. It adds two products, and would cut off
    what is beyond int16: they are below 2 127^2 < 2^15. All later sums are modulo 2^16.

    A value is at most clipped, or shortened for its row, and then rounded, so n + e <= sqrt(2) |l|
    + sqrt(m) / T. S is such that S (sqrt(2) |v| + sqrt(m) / T) <= 32,000 for the longest row, which
    S >= T allows for up to 2^27 coordinates: what is in int16 fits, and sums fit int32. Of them,
    S^2 (h_a.h_b + s_a s_b) is below 32,000^2 / 2, the rest of the products below 32,000^2, the
    halves S^2 |v|^2 / 2 below 32,000^2 / 4 and S^2 eps (|v| + eps) below 2^17.

Underflow
    A coordinate of p that is subnormal in float32 is off by up to d 2^-150 more. For
    rows that are not much longer than that it is not small beside eta |v|, and is paid for by
    ``SHORT``, which is added to s: SHORT s_b >= SHORT sqrt(delta) |v_b|. In integers the 0.01 in
    eps pays for it, also in s, or the scores of all rows are below ``TINY``. Products that
    underflow add less than ``TINY``.

Scale
    Rows are stored in any range of float32 or float64. What float32 products are made of is scaled
    so that nothing overflows and little underflows:

    - cosine: v is computed in float64, whatever the range. Rows whose norm is not within MIN_NORM
      and 1 / MIN_NORM are multiplied by a power of two of their own for other products.
    - inner product: as they are. Norms end at MAX_NORM (vectors.py), so no score overflows.
    - Euclidean: v = (a - c) 2^-e with one e for all rows, the basis's. F is in this scale, and so
      are the floors made of scores. A score is off by 2^-149, besides relatively, where it is next
      to zero; e >= -60 keeps that below TINY in F, or below the 16 u that `tie_floor` allows. Where
      c is far away, or e is not 0, other products are made of v, too.

    Scaling is exact in float64 and rounded once more, relatively by u, and by 2^-150 where the
    result is subnormal. The first is in ``dot_slack``, the second is below 8 u of a row that
    is no shorter than SHORTEST sqrt(d). Shorter ones are given that length: it makes their errors
    larger, and F smaller by less than TINY.

    Rows beyond MAX_NORM in this scale, which are outliers that the sample lacked, are packed as
    zeros, with an infinite slack coordinate: their filter value is infinite, so that each of their
    pairs passes, and their size is given as infinite, so that each gets its exact score.
"""

from __future__ import annotations

import math

UNIT32 = 2.0**-24
"""Unit roundoff of float32."""
EXACT = 1e-12
"""Bound on the relative error of the float64 scores themselves, whose sums are pairwise."""
TINY = 1e-37
"""Absolute allowance for underflow in float32."""
SHORT = 1e-34
"""Allowance in the slack coordinate for prefixes that are subnormal in float32."""
MAX_NORM = 1e19
"""Norms above this could overflow a float32 product: for Euclidean distance, F's terms add up to
twice its square."""
MIN_NORM = 1e-15
"""Products of rows could be lost to underflow when one of them has a smaller norm."""
LEADING = 16
"""Coordinates that a product of integers takes in int16: h above."""
SHORTEST = 2.0**-127
"""Times sqrt(d): rows that are shorter lose more to underflow than to rounding."""


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


def int16_error(width: int, scale: float) -> float:
    """Bound on |p - x / scale| of ``width`` coordinates rounded to integers x, in float64."""
    return 0.51 * math.sqrt(width) / scale
