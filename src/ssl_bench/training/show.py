"""A picture of how training and evaluation will see the images."""

from __future__ import annotations

from pathlib import Path

from ssl_bench.augment.views import CleanView
from ssl_bench.config.schema import Config
from ssl_bench.data.single_images import batches_of, chosen_images, clean_view, pixels
from ssl_bench.report.contact_sheet import Row, contact_sheet, in_words
from ssl_bench.training.build import build_data, build_views, clean_arguments


def show(config: Config, path: Path, *, images: int, views: int) -> str:
    """Draw ``images`` images and at least so many ``views`` of each that training will draw; the sentence about it."""
    data = build_data(config)
    dataset, drawn_by = data.dataset, build_views(config, data.dataset)
    clean = CleanView(**clean_arguments(config, dataset))
    loader = data.train_dataloader()
    draws = -(-views // drawn_by.count)
    rows = []
    for number in chosen_images(loader, images):
        seen = [one for one, _ in zip(batches_of(loader, number), range(draws), strict=False)]
        label = int(seen[0].labels)
        rows.append(
            Row(
                clean=pixels(clean_view(clean, seen[0]), clean),
                name=dataset.class_names[label] if label >= 0 else "",
                draws=[[pixels(view, drawn_by) for view in drawn_by(one)] for one in seen],
            )
        )
    contact_sheet(
        path,
        rows,
        title=f"{dataset.name} as {config.method.name} sees it (scale={config.scale.name})",
        lines=[
            *(
                f"{group.count} view{'s' if group.count > 1 else ''} of {group.size} × {group.size} pixels: "
                f"{in_words(group, dataset.channels)}."
                for group in drawn_by.groups
            ),
            "First column: the image as evaluation sees it. Then the views of the first "
            f"{f'{draws} times' if draws > 1 else 'time'} that training looks at it, with seed={config.seed}.",
        ],
    )
    return f"{path} shows {len(rows)} images and {sum(map(len, rows[0].draws))} views of each."
