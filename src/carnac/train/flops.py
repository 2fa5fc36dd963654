"""What a device could compute at best, for the utilisation of a step (MFU)."""

from __future__ import annotations

import re

import torch

from carnac.train.settings import ComputeSettings

# Dense bfloat16 with float32 sums, in 1e12 operations a second, from the makers' data sheets (which print twice as much
# for sparse matrices). The first whose words stand in torch's name of the device is the one.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("GH200", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("A100", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("MI325X", 1307.4),
    ("MI300X", 1307.4),
    ("MI250X", 191.5),  # torch counts its two halves as two devices
)


def peak_flops(settings: ComputeSettings, device: torch.device) -> float | None:
    """Return the operations a second that `device` can do at best, None where nobody has said.

    `settings.peak_tflops` is taken where it is set, else the data sheet of a GPU that computes in bfloat16: a share of
    that in float32, or of a CPU whose speed is not written anywhere, would say nothing.
    """
    if settings.peak_tflops is not None:
        return settings.peak_tflops * 1e12
    if device.type != "cuda" or settings.precision != "bf16":
        return None
    return known_peak(torch.cuda.get_device_name(device))


def known_peak(name: str) -> float | None:
    """Return the operations a second of the GPU that torch calls `name`, None for one that is not known."""
    if "Laptop" in name:  # the same names with half the power
        return None
    found = (tflops for part, tflops in PEAK_TFLOPS if re.search(rf"\b{part}\b", name))
    return next((tflops * 1e12 for tflops in found), None)
