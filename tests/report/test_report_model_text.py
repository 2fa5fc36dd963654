from __future__ import annotations

from pathlib import Path

from carnac.model.describe import ModelSize, PartSize
from carnac.report.model_text import folder_text, size_text
from carnac.report.text import describe

SIZE = ModelSize(
    parts=(
        PartSize(name="vision", kind="clip_vision_model, 24 layers of width 1024", parameters=303_507_456, trained=0),
        PartSize(name="connector", kind="mlp", parameters=20_979_712, trained=20_979_712),
        PartSize(name="language", kind="llama, 32 layers of width 4096", parameters=6_738_415_616, trained=0),
        PartSize(name="adapters", kind="LoRA [of rank 8]", parameters=4_096, trained=4_096),
    ),
    image_size_px=336,
    tokens_per_image=576,
    cache_bytes=524_288,
)


def test_each_part_has_a_line_and_the_sums_are_right() -> None:
    lines = size_text(SIZE).splitlines()
    assert [" ".join(line.split()) for line in lines[:6]] == [
        "part parameters trained what it is",
        "vision 303,507,456 0 clip_vision_model, 24 layers of width 1024",
        "connector 20,979,712 20,979,712 mlp",
        "language 6,738,415,616 0 llama, 32 layers of width 4096",
        "adapters 4,096 4,096 LoRA [of rank 8]",
        "all 7,062,906,880 20,983,808",
    ]
    assert lines[6] == "squares of 336 px, 576 image tokens each"
    # 4 bytes of 7,062,906,880 weights; 12 more of each of the 20,983,808 that are trained.
    assert lines[7].startswith("memory in fp32: weights 28 GB; in training 29 GB with gradients")
    assert lines[7].endswith("cache of 524.3 KB per token")


def test_a_folder_that_does_not_tell_its_sizes_is_shown_without_them(tmp_path: Path, model: Path) -> None:
    assert folder_text(None) == ""
    assert folder_text(tmp_path) == ""
    text = describe(model)
    assert "model: siglip_vision_model + llama" in text
    assert text.index("model: siglip_vision_model") < text.index("squares of 32 px, 4 image tokens each")
    assert "squares of" not in describe(model, brief=True)
