"""Array types and the letters of their axes.

B batch, S samples, M mel bins, F mel frames, U2 encoder frames, D2 their width, U speech frames after the
adapter, T model steps, K streams (text first), Q codebooks, D model width, V text ids, C ids of a codebook,
L mixture-of-experts layers, E experts, N tokens, G groups.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
