"""A network that judges queries by the names of classes: from the file of embeddings to saved weights and back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pano3d import cli, config
from pano3d.commands.text_classes import class_names
from pano3d.data.archive import write_scene
from pano3d.data.batches import TrainingSteps
from pano3d.data.label_spaces import label_space
from pano3d.model import HeadConfig, ModelConfig
from pano3d.model_files import draw_model, read_model, write_model
from pano3d.panoptic.class_head import TextClassHead
from pano3d.panoptic.text_classes import TextClasses, embed_names, write_text_classes
from pano3d.training.loop import train
from pano3d.types import ConfigError, DataError, Views
from tests.data.scenes import make_scene
from tests.training import small

NAMES = label_space("scannet20").names


def encode(texts: list[str]) -> Tensor:
    """A small text tower: letters counted into twelve channels."""
    counts = torch.zeros(len(texts), 12)
    for row, text in enumerate(texts):
        for place, letter in enumerate(text):
            counts[row, (ord(letter) * (place + 1)) % 12] += 1
    return counts


def text_file(folder: Path, names: tuple[str, ...] = NAMES) -> tuple[Path, TextClasses]:
    classes = embed_names([*reversed(names)], encode, "letters")
    write_text_classes(classes, folder / "classes.safetensors")
    return folder / "classes.safetensors", classes


def described(file: Path | None, space: str = "scannet20", **decoder: object) -> ModelConfig:
    head = config.plain(small.MODEL.head)
    head["decoder"] |= {"class_head": "text", "text_width": 12, **decoder}
    head["text_classes"] = None if file is None else str(file)
    return replace(small.MODEL, head=config.load(head, HeadConfig), label_space=space)


@pytest.mark.parametrize(("mode", "columns"), [("softmax", 21), ("sigmoid", 20)])
def test_from_the_file_to_a_saved_model_and_back(tmp_path: Path, mode: str, columns: int) -> None:
    file, classes = text_file(tmp_path)
    torch.manual_seed(0)
    wanted = described(file, class_mode=mode)
    model = draw_model(wanted).eval()
    head = model.mask_decoder.class_head
    assert isinstance(head, TextClassHead)
    # In the order of the label space, whatever the file's.
    assert torch.equal(head.text_embeddings, classes.arrange(NAMES))
    write_model(tmp_path / "model", model, wanted, "Apache-2.0", {})
    file.unlink()  # the embeddings travel with the weights
    again, description = read_model(tmp_path / "model")
    assert description.config == wanted
    views = Views(torch.rand(1, 1, 3, 32, 48, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        first, second = model(views)[1], again(views)[1]
    assert second.class_logits[0].shape == (1, 6, columns)
    assert torch.equal(first.class_logits[0], second.class_logits[0])


def test_what_does_not_fit_is_told_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pano3d text-classes"):
        described(None)
    with pytest.raises(ConfigError, match="only then"):
        replace(small.MODEL.head, text_classes="classes.safetensors")
    with pytest.raises(DataError, match=r"absent\.safetensors"):
        draw_model(described(tmp_path / "absent.safetensors"))
    file, _ = text_file(tmp_path, NAMES[:-1])
    with pytest.raises(DataError, match=f"no embedding for {NAMES[-1]}"):
        draw_model(described(file))
    file, _ = text_file(tmp_path)
    with pytest.raises(ConfigError, match="width 10"):
        draw_model(described(file, text_width=10))


def test_the_overrides_that_we_document_reach_the_head() -> None:
    words = ["+head.decoder.class_head=text", "+head.decoder.text_width=12", "+head.text_classes=classes.safetensors"]
    head = config.load(config.compose(Path(__file__).parents[1] / "params", words), HeadConfig, "head")
    assert (head.decoder.class_head, head.decoder.text_width) == ("text", 12)
    assert head.text_classes == "classes.safetensors"
    words = ["head=panst3r", "head.text_classes=classes.safetensors"]
    head = config.load(config.compose(Path(__file__).parents[1] / "params", words), HeadConfig, "head")
    assert head.decoder.class_mode == "sigmoid"


def test_names_come_from_a_label_space_or_a_file(tmp_path: Path) -> None:
    assert tuple(class_names("scannet20")) == NAMES
    (tmp_path / "names.txt").write_text("sofa\n\n  standing lamp \n")
    assert class_names(str(tmp_path / "names.txt")) == ["sofa", "standing lamp"]
    with pytest.raises(DataError, match="neither a text file nor one of scannet20"):
        class_names(str(tmp_path / "absent.txt"))


def mixed_archives(folder: Path) -> list[Path]:
    """The same scene as two datasets annotate it: with 20 classes and with 40."""
    paths = []
    for space in ("scannet20", "nyu40"):
        paths.append(folder / f"{space}.zip")
        write_scene(paths[-1], replace(make_scene(space, views=2, height=32, width=48), label_space=space))
    return paths


def test_datasets_of_several_label_spaces_share_a_vocabulary(tmp_path: Path) -> None:
    vocabulary = label_space("nyu40")
    loader = replace(small.training().loader, images_per_batch=16)
    batch = TrainingSteps(mixed_archives(tmp_path), loader, seed=0, vocabulary=vocabulary)[0]
    assert set(batch.scenes) == {"scannet20", "nyu40"}
    allowed = batch.panoptic.class_allowed
    assert allowed is not None
    for scene, name in enumerate(batch.scenes):
        classes = {vocabulary.names[class_id] for class_id in batch.panoptic.class_id[scene].tolist()}
        assert classes == {"wall", "chair"}
        judged = {one for one, is_allowed in zip(vocabulary.names, allowed[scene].tolist()) if is_allowed}
        assert judged == set(label_space(name).names) & set(vocabulary.names)
    # ScanNet's list says "refrigerator" where NYU's says "refridgerator": such pixels are void.
    assert sorted(allowed.sum(1).unique().tolist()) == [19, 40]
    alone = TrainingSteps(mixed_archives(tmp_path)[1:], loader, seed=0, vocabulary=vocabulary)[0]
    assert alone.panoptic.class_allowed is None


def test_training_on_two_datasets_moves_the_queries_and_not_the_vocabulary(tmp_path: Path) -> None:
    vocabulary = label_space("nyu40")
    file, classes = text_file(tmp_path, vocabulary.names)
    torch.manual_seed(0)
    model = draw_model(described(file, "nyu40"))
    before = {name: value.clone() for name, value in model.mask_decoder.class_head.state_dict().items()}
    rows = train(
        model,
        small.objective(),
        mixed_archives(tmp_path),
        small.training(2),
        seed=0,
        state_path=tmp_path / "state.pt",
        device=torch.device("cpu"),
        log=lambda values, step: None,
        vocabulary=vocabulary,
    )
    assert rows[-1]["loss/segmentation/class"] > 0
    after = model.mask_decoder.class_head.state_dict()
    assert torch.equal(after["text_embeddings"], classes.arrange(vocabulary.names))
    for name in ("lang_embed.weight", "no_object"):
        assert not torch.equal(after[name], before[name])


def test_a_dataset_without_a_common_class_is_refused(tmp_path: Path) -> None:
    strange = replace(label_space("scannet20"), name="strange", names=tuple(f"{name}?" for name in NAMES))
    steps = TrainingSteps(mixed_archives(tmp_path), small.training().loader, seed=0, vocabulary=strange)
    with pytest.raises(DataError, match="shares no class name with strange"):
        steps[0]


@pytest.mark.parametrize("change", ["grow", "split-patches"])
def test_a_larger_or_finer_network_needs_no_file_again(tmp_path: Path, change: str) -> None:
    file, _ = text_file(tmp_path)
    torch.manual_seed(0)
    wanted = described(file)
    model = draw_model(wanted)
    write_model(tmp_path / "model", model, wanted, "Apache-2.0", {})
    file.unlink()
    config.write(tmp_path / "params.yaml", {"seed": 0, "backbone": config.plain(wanted.backbone)})
    more = ["--params", str(tmp_path / "params.yaml")] if change == "grow" else []
    assert cli.main([change, str(tmp_path / "model"), *more, "-o", str(tmp_path / "new")]) == 0
    kept = read_model(tmp_path / "new")[0].state_dict()["mask_decoder.class_head.text_embeddings"]
    assert torch.equal(kept, model.state_dict()["mask_decoder.class_head.text_embeddings"])
