"""What a captioner is, in words, for `xgpt-caption --about` and for the folder of `xgpt-export --onnx`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xgpt_fairseq.bundle import Bundle


def about(bundle: Bundle) -> str:
    """What a captioner is, in lines, and its model card."""
    return "\n".join([*about_lines(bundle), "", bundle.card.strip() or "It has no model card."])


def about_lines(bundle: Bundle) -> list[str]:
    """What a captioner is, in lines."""
    config, training, settings = bundle.config, bundle.training, bundle.extractor_settings
    parameters = sum(each.numel() for each in bundle.model.parameters())
    lines = [
        f"model       {parameters:,} parameters, {config.layers} layers, {config.hidden_size} wide, {config.sharing}",
        f"vocabulary  {len(bundle.vocabulary.dictionary):,} entries",
        f"regions     {bundle.trained_on}, {config.feature_dim} wide",
    ]
    if settings is not None:
        from xgpt_fairseq.vision.rebuilding import in_words

        lines.append(f"photos      {in_words(settings)}")
    if training:
        updates = f", {training['updates']:,} updates" if training.get("updates") else ""
        start = f", started from {training['started_from']}" if training.get("started_from") else ""
        lines.append(
            f"trained on  {training['data']}: {training['images']:,} images, {training['captions']:,} captions"
            f"{updates}{start}"
        )
    return lines
