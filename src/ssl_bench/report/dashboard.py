"""The W&B dashboard of a table or figure: a saved view per dataset, by wandb-workspaces."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssl_bench.config import experiments, sources
from ssl_bench.config.experiments import Experiment
from ssl_bench.config.options import CHOICES
from ssl_bench.errors import UserError
from ssl_bench.report.palette import row_colours

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as panels
    from wandb_workspaces import workspaces

TRAINED = ("teacher", "student")  # networks that have curves
SCORED = (*TRAINED, "random", "pixels")  # those of a run's final table
RETRIES, TIMEOUT_SECONDS = 2, 15  # W&B's own are for uploads over days
MOST_RUNS = 100  # in a panel; W&B shows 10 unless set
MEANS: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}  # of a group of runs
COLLAPSE = ("embedding_std", "rankme", "uniformity", "alignment")
FIND_VIEW = """
    query View($entity: String, $project: String, $view: String) {
        project(name: $project, entityName: $entity) {
            allViews(viewType: "project-view", viewName: $view) { edges { node { id } } }
        }
    }
"""


def dashboard(settings: Mapping[str, Any]) -> None:
    """Save the views of a table's or figure's datasets and print their addresses, or print what they are."""
    experiment = experiments.find(settings["experiment"])
    experiments.require_runs(experiment)
    # Asks for the scale, too.
    datasets = list(dict.fromkeys(cell.dataset for cell in experiment.cells(settings["scale"])))
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("the dashboard needs a package that is not installed: pip install 'ssl-bench[dashboard]'.")
    if settings["dry"]:
        views = [define(experiment, dataset, settings) for dataset in datasets]
        print(json.dumps([described(view) for view in views], indent=1, ensure_ascii=False))
    else:
        for address in save(experiment, datasets, settings):
            print(address)


def define(experiment: Experiment, dataset: str, settings: Mapping[str, Any]) -> workspaces.Workspace:
    """The view of one dataset; equal for equal arguments, to the last id."""
    import wandb_workspaces.workspaces as ws

    group = settings["group"] or experiment.group(settings["scale"])
    if re.search(r"['\\=<>!]", group):
        raise UserError(
            f"group={group} cannot be asked for: W&B's filters take no apostrophe, backslash, =, <, > or !."
        )
    evaluation = sources.load(f"evaluation/{CHOICES['evaluation']}.yaml")
    protocols = evaluation["protocols"]
    shown = experiment.show.get("protocols", [experiment.show.get("protocol")])
    curves = sorted(evaluation["curves"], key=lambda protocol: protocol not in shown)
    view = ws.Workspace(
        entity=settings["entity"] or "",
        project=settings["project"],
        name=re.sub(r"[^\w .,:-]", "-", f"{group} {dataset}"),  # W&B takes no symbols
        sections=_sections(curves, protocols),
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MOST_RUNS, tooltip_number_of_runs="all_runs"),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == group, ws.Tags().isin([dataset])),
            groupby=[ws.Config("row")],
            group_colors=row_colours({at.label: row for at, row in experiment.positions(settings["scale"]).items()}),
            # With the runs grouped, these columns are the table of means.
            pinned_columns=[f"summary:final/{protocol}/{network}" for protocol in protocols for network in TRAINED],
        ),
    )
    _name(view, f"{group} {dataset}")
    return view


def _sections(curves: Sequence[str], protocols: Sequence[str]) -> list[workspaces.Section]:
    """What a view shows: accuracy over epochs, collapse, training, the final table and pictures of features."""
    import wandb_workspaces.reports.v2 as panels

    return [
        *(
            _section(
                f"{protocol}: % of images over epochs",
                [
                    _curve(f"{split}/{protocol}/{network}", f"{split}, {network}", "%")
                    for split in ("validation", "test")
                    for network in TRAINED
                ],
                columns=len(TRAINED),
            )
            for protocol in curves
        ),
        _section("Collapse", [_curve(f"collapse/{name}", name) for name in COLLAPSE], columns=len(COLLAPSE)),
        _section("Training", [_curve(name, name) for name in ("loss", "lr", "images_per_second")], columns=3),
        _section(
            "Final table: % of test images",
            [_final(protocol, network) for protocol in protocols for network in SCORED],
            columns=len(SCORED),
        ),
        _section("Features", [panels.MediaBrowser(title="t-SNE", media_keys=["t-SNE"], num_columns=4)], columns=1),
    ]


def _curve(metric: str, title: str, label: str | None = None) -> panels.LinePlot:
    import wandb_workspaces.reports.v2 as panels

    # Grouping and colours are those of the list of runs; this sets how a group is drawn.
    return panels.LinePlot(
        title=title,
        x="epoch",
        y=[metric],
        title_x="epoch",
        title_y=label,
        smoothing_type="none",
        max_runs_to_show=MOST_RUNS,
        **MEANS,
    )


def _final(protocol: str, network: str) -> panels.BarPlot | panels.ScalarChart:
    import wandb_workspaces.reports.v2 as panels

    title, metric = f"{protocol}, {network}", f"final/{protocol}/{network}"
    if network not in TRAINED:  # hardly a row's business: the weights are those of the seed, the pixels the dataset's
        return panels.ScalarChart(title=title, metric=metric, groupby_aggfunc="mean")
    return panels.BarPlot(
        title=title,
        metrics=[metric],
        orientation="h",
        title_x="% of test images",
        max_runs_to_show=MOST_RUNS,
        max_bars_to_show=MOST_RUNS,
        **MEANS,
    )


def _section(name: str, panels: Sequence[Any], columns: int) -> workspaces.Section:
    import wandb_workspaces.workspaces as ws

    rows = -(-len(panels) // columns)
    return ws.Section(
        name=name,
        panels=list(panels),
        is_open=True,
        layout_settings=ws.SectionLayoutSettings(columns=columns, rows=rows),
        panel_settings=ws.SectionPanelSettings(x_axis="epoch"),
    )


def _name(view: workspaces.Workspace, name: str) -> None:
    """Give the view and its parts ids of their own instead of random ones, so that it is found again."""

    def identity(part: str) -> str:
        return hashlib.blake2b(f"ssl_bench {name} {part}".encode(), digest_size=6).hexdigest()

    view._internal_name = f"nw-{identity('view')[:11]}-v"  # the form of W&B's own
    view._internal_runset_id = identity("runs")
    for section in view.sections:
        for panel in section.panels:
            panel._id = identity(f"{section.name} {panel.title}")


def described(view: workspaces.Workspace) -> dict[str, Any]:
    """What is sent to W&B, as plain data."""
    model: dict[str, Any] = view._to_model().model_dump(by_alias=True, exclude_none=True)
    return model


def save(experiment: Experiment, datasets: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Create or update the views of the datasets; returns their addresses.

    Raises:
        UserError: no key, no network, no such project, or W&B refuses.
    """
    import wandb
    from wandb_workspaces._graphql import execute_graphql

    # Silent for the session: else a missing key is asked for at the terminal.
    wandb.setup(
        settings=wandb.Settings(
            silent=True,
            x_graphql_retry_max=RETRIES,
            x_graphql_retry_wait_max_seconds=1,
            x_graphql_timeout_seconds=TIMEOUT_SECONDS,
        )
    )
    hint = "dry=true prints the dashboard without asking W&B"
    try:
        api = wandb.Api()
        entity = settings["entity"] or api.default_entity
    except wandb.errors.UsageError as error:
        raise UserError(f"W&B asks for a key ({_line(error)}): run wandb login or set WANDB_API_KEY; {hint}.") from None
    except Exception as error:  # of many kinds: W&B's, and those of the libraries below it
        raise UserError(f"W&B cannot be reached ({_line(error)}): check the network and the key; {hint}.") from None
    if not entity:
        raise UserError("the key belongs to no W&B user or team: name one, as in entity=NAME.")
    addresses = []
    for dataset in datasets:
        view = define(experiment, dataset, {**settings, "entity": entity})
        place = {"entity": entity, "project": settings["project"], "view": view._internal_name}
        try:
            project = execute_graphql(api, FIND_VIEW, place).get("project")
            if project is not None:
                for edge in project["allViews"]["edges"]:
                    view._internal_id = edge["node"]["id"]  # W&B updates what has an id, and adds what has none
                view.save()
                addresses.append(view.url)
        except Exception as error:
            raise UserError(
                f"W&B did not take the view {view.name} ({_line(error)}): may the key write there?"
            ) from None
        if project is None:
            raise UserError(
                f"there is no W&B project {entity}/{settings['project']}, or the key may not see it: upload runs first."
            )
    return addresses


def _line(error: Exception) -> str:
    return " ".join(str(error).partition(" while retrying")[0].split()).rstrip(".")
