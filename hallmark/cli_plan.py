"""The command `hallmark plan`: memory, time and money of an experiment before it runs."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=False, invoke_without_command=True)
prices_app = typer.Typer(no_args_is_help=True, help="The dated table of prices.")
app.add_typer(prices_app, name="prices")


@app.callback()
def plan(
    context: typer.Context,
    setting: Annotated[
        list[str] | None, typer.Option("-S", "--set", help="as `make repro S=…`, such as train.seed=1")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="config.json of a language model; its weights are not needed")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="of one machine; default: train.processes")] = None,
    deadline: Annotated[float | None, typer.Option(min=0, help="hours that training may take")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="US dollars that training may cost")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="train 20 steps here, and tell the time from them")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="also write it to this file, HTML")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> None:
    """Say what the training of an experiment needs before it runs: memory, time, money, and on which machine.

    Memory is read off the training step itself, which runs without computing a number. Prices are those of
    conf/plan/prices.csv, with the day each was read.
    """
    if context.invoked_subcommand is not None:
        if setting or model or gpus or deadline is not None or budget is not None or measure or page or as_json:
            raise typer.BadParameter(f"{context.invoked_subcommand} takes none of these options")
        return
    from hallmark.plan.report import make_plan, show

    _check_page(page)
    made = make_plan(_configured(setting or []), model, gpus, deadline, budget, measure, date.today())
    _shown(page, lambda console: show(console, made), made.plain if as_json else None)


@app.command()
def advise(
    setting: Annotated[
        list[str] | None, typer.Option("-S", "--set", help="as `make repro S=…`, such as experiment=text")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="config.json of a language model")] = None,
    deadline: Annotated[float | None, typer.Option(min=0, help="hours that training may take")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="US dollars that training may cost")] = None,
    page: Annotated[Path | None, typer.Option(help="also write it to this file, HTML")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the advice as JSON")] = False,
) -> None:
    """Compare strategies, ways to save memory and numbers of GPUs: what costs least and fits, and how to take it up.

    conf/plan/advice.yaml lists what is compared. Every configuration is planned, none is looked up.
    """
    from hallmark.plan.advice_report import make_advice, plain_advice, show_advice

    _check_page(page)

    def planned(option: Any) -> None:
        typer.echo(f"planned {' '.join(option.settings) or 'as it is'}", err=True)

    settings = setting or []
    advice, compared = make_advice(_configured, settings, model, deadline, budget, planned)
    _shown(
        page,
        lambda console: show_advice(console, advice, compared, settings, model, date.today()),
        (lambda: plain_advice(advice, settings)) if as_json else None,
    )


@app.command()
def serve(
    setting: Annotated[list[str] | None, typer.Option("-S", "--set", help="such as experiment=text")] = None,
    model: Annotated[
        Path | None, typer.Option(help="config.json of a language model; without it, measured loads alone are shown")
    ] = None,
    adapters: Annotated[int, typer.Option(min=0, help="people whose adapter is held at once")] = 64,
    context: Annotated[int, typer.Option(min=2, help="tokens of a text")] = 2048,
    at_once: Annotated[int, typer.Option(min=1, help="texts at once")] = 16,
    precision: Annotated[str, typer.Option(help="of the weights: bf16 or fp32")] = "bf16",
    load: Annotated[float | None, typer.Option(min=0.001, max=1e9, help="requests a second, day and night")] = None,
    p95: Annotated[float | None, typer.Option(min=0.001, help="ms that 95% of the answers may take at most")] = None,
    usd_per_hour: Annotated[float | None, typer.Option(min=0, help="of the machine that was measured")] = None,
) -> None:
    """Say what serving needs: memory of base, adapters and cache; machines; the cost of 1,000 answers as measured."""
    from hallmark.plan.prices import read_gpus, read_prices
    from hallmark.plan.serve import SERVED, read_load, replicas, serving_cost
    from hallmark.plan.serve_report import show_load, show_serving

    measured = read_load(p95) if SERVED.is_file() or model is None else None
    if model is None:
        _shown(None, lambda console: show_load(console, measured, load, usd_per_hour))
        return
    strategy = getattr(_configured(setting or [])["model"]["candidates"][0], "strategy", None)
    if strategy is None:
        from hallmark.errors import ConfigError

        raise ConfigError("--model plans a causal language model: add -S experiment=text")
    cost = serving_cost(model, strategy, adapters, context, at_once, precision)
    known = read_gpus()
    found = replicas(cost, read_prices(known=known), known, precision)
    _shown(None, lambda console: show_serving(console, cost, found, measured, load, usd_per_hour))


@app.command()
def review() -> None:
    """Compare every training run on record here with the last plan that was made of it before."""
    from hallmark.plan.review import review as compared
    from hallmark.plan.review_report import show_review

    _shown(None, lambda console: show_review(console, compared()))


@prices_app.command("import")
def import_table(file: Annotated[Path, typer.Argument(help="CSV; every row with price, date and source")]) -> None:
    """Check a table of prices, and let it replace conf/plan/prices.csv."""
    from hallmark.plan.prices import import_prices

    typer.echo(f"{import_prices(file)} prices of {file} are in conf/plan/prices.csv now")


stack_app = typer.Typer(no_args_is_help=True, help="Where pipelines run: the stacks of conf/stack.")


@stack_app.command("check")
def check_stack(name: Annotated[str, typer.Argument(help="file of conf/stack, such as kubernetes")]) -> None:
    """Check a stack without a cluster: keys, values, GPUs, manifests, images and secrets."""
    # ZenML is asked in a process of its own: the library knows no orchestrator.
    run = subprocess.run([sys.executable, "-m", "runtime.stack", "check", name], check=False)
    raise typer.Exit(run.returncode)


def _check_page(page: Path | None) -> None:
    if page is not None and page.is_dir():
        raise typer.BadParameter(f"--page {page} is a directory: name a file")


def _shown(
    page: Path | None, show: Callable[[Any], None], as_json: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Print tables, or JSON, to the terminal, and write tables to a page if one is asked for."""
    from hallmark.files import write_text
    from hallmark.judge.terminal import open_console

    console = open_console()
    console.record = page is not None
    if as_json is not None:
        console.file = io.StringIO()  # tables are for the page alone
        typer.echo(json.dumps(as_json(), indent=1))
    if as_json is None or page is not None:
        show(console)
    if page is not None:
        write_text(page, console.export_html())
        typer.echo(f"page     {page}", err=as_json is not None)


def _configured(settings: Sequence[str]) -> Mapping[str, Any]:
    """Return the built experiment: of params.yaml, or of conf/ with settings."""
    import yaml

    from hallmark.build import build_experiment, read_params
    from hallmark.errors import ConfigError

    if not settings:
        return build_experiment(read_params())
    # Hydra composes in a process of its own: the library knows no orchestrator.
    run = subprocess.run(
        [sys.executable, "-m", "runtime.compose", "--print", *settings], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise ConfigError(run.stderr.strip().removeprefix("error: ").splitlines()[-1])
    return build_experiment(yaml.safe_load(run.stdout))
