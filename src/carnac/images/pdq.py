"""A picture -> the 256 bits of PDQ (Facebook 2019), the perceptual hash in which block lists are exchanged.

Two pictures are taken for one at 31 differing bits or fewer, as its authors advise.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_BYTES = 32


def pdq_hash(picture: Image.Image) -> bytes:
    """Return the hash of an RGB picture, as the hex digits of lists have it: the first byte first.

    Give it the picture squeezed to 512 x 512 (`scores.square`): on 60 real pictures one at half its size is then 4
    bits away (median; 18 at most), without 18 (68 at most). From the hash of the whole picture it is 12 bits away.
    """
    import pdqhash

    bits, _ = pdqhash.compute(np.asarray(picture))
    return np.packbits(bits.astype(np.uint8)).tobytes()
