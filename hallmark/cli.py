"""The command `hallmark`: verify bundles, predict, refresh adapters, show the last run, check this machine."""

# Whatever takes long to import is imported in the command that uses it.

import sys
from pathlib import Path
from typing import Annotated

import typer

from hallmark import kernels
from hallmark.errors import HallmarkError

app = typer.Typer(help=__doc__.splitlines()[0] if __doc__ else "", no_args_is_help=True, pretty_exceptions_enable=False)

BUNDLE = Path("bundle")
BUNDLES = Path("bundles")  # the last bundle of every task
Bundle = Annotated[Path, typer.Option(envvar="HALLMARK_BUNDLE", help="a bundle's directory")]
DIARY = Path("models/current/diary")
EVALUATION = Path("reports/evaluation")
NIGHTLY = Path("nightly")


@app.command()
def summary(bundle: Bundle = BUNDLE, evaluation: Path = EVALUATION) -> None:
    """Show what the last run found: model against baselines, gates, version, where to look next."""
    from hallmark.build import build_experiment, read_params
    from hallmark.judge.terminal import show_figures, show_places

    built = build_experiment(read_params())
    evaluator = built["evaluate"]["evaluator"]
    show_figures(evaluation, evaluator.shown, evaluator.metrics(built["task"], built["learner"]))
    show_places(bundle, evaluation)


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(envvar="HALLMARK_BUNDLE")] = BUNDLE) -> None:
    """Check the sha256 of every file of a bundle."""
    from hallmark.prove.bundle import open_bundle

    hallmark, digest = open_bundle(bundle)
    typer.echo(
        f"{bundle}: {hallmark.task} {hallmark.version}, {len(hallmark.files)} files as marked, hallmark {digest[:12]}"
    )


@app.command()
def doctor() -> None:
    """Check what a run needs of this machine: each line is ok, or the remedy."""
    from hallmark.doctor import examine

    checks = list(examine(Path.cwd()))
    for check in checks:
        typer.echo(f"{'ok    ' if not check.remedy else 'MEND  '} {check.name:10} {check.found}")
        if check.remedy:
            typer.echo(f"{'':17} → {check.remedy}")
    if any(check.remedy for check in checks):
        raise typer.Exit(1)


@app.command()
def predict(
    requests: Annotated[list[Path], typer.Argument(help="JSON files with one request each")],
    bundle: Annotated[
        Path | None, typer.Option(envvar="HALLMARK_BUNDLE", help="default: the last bundle of the request's task")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print whole answers")] = False,
) -> None:
    """Answer requests from files, as the service would."""
    from hallmark.ask import answer, show

    bundles = [bundle] if bundle else [BUNDLE, *sorted(BUNDLES.glob("*"))]
    for request in requests:
        response = answer(request, bundles)
        if as_json:
            typer.echo(response.model_dump_json(indent=1))
        else:
            show(request, response)


@app.command()
def refresh(
    rows: Annotated[Path, typer.Argument(help="a CSV or Parquet file with the new rows")],
    bundle: Annotated[Path | None, typer.Option(envvar="HALLMARK_BUNDLE")] = None,
    diary: Path | None = None,
    out: Path = NIGHTLY,
    setting: Annotated[list[str] | None, typer.Option("--set", help="how to read ROWS, as unit=mmol/L")] = None,
) -> None:
    """Take up new rows, such as a day of readings, without training: a new bundle and a new diary.

    Starts from OUT as the last refresh left it, else from the trained bundle and its diary.
    """
    from hallmark.errors import BundleError, ConfigError
    from hallmark.files import recover
    from hallmark.prove.bundle import open_bundle
    from hallmark.stages.refresh import refresh as stage
    from hallmark.stages.refresh import trained_from

    pairs = [pair.partition("=") for pair in setting or ()]
    if odd := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError(f"--set {odd[0]} has no value: write --set KEY=VALUE")
    recover(out)  # a refresh may have been killed
    if bundle is None and diary is None and (out / "bundle").is_dir():
        bundle = out / "bundle"
        if BUNDLE.is_dir() and trained_from(*open_bundle(bundle)) != trained_from(*open_bundle(BUNDLE)):
            raise BundleError(f"{bundle} goes back to another trained bundle than {BUNDLE}: remove {out}, or name both")
    bundle = bundle or BUNDLE
    beside = bundle.parent / "diary"
    diary = diary or (beside if beside.is_dir() else DIARY)
    hallmark, found = stage(rows, bundle, diary, out, {key: value for key, _, value in pairs})
    counts = ", ".join(f"{name} {count:,}" for name, count in found.items())
    typer.echo(f"{out / 'bundle'}: {hallmark.task} {hallmark.version}; {counts}")


def main() -> None:
    """Run the command line; an error is one line and exit status 1."""
    try:
        kernels.pin()
        app(prog_name="hallmark")
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
